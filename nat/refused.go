package nat

// refused is the flag of a UDP session whose packets the inside does not take; TCP shows the same by a RST.
const refused = rstSeen

// Refuse notes that the inside has answered a packet of a UDP session with an ICMP destination-unreachable. The session goes on,
// but only what the inside sends refreshes it from now on: a flood that nobody takes must not keep it for ever, nor do
// the errors it provokes (RFC 7857 §7.1).
func (t *Table) Refuse(r Ref) {
	if t.Translation(r).Proto == protoUDP {
		t.counts[inbound][r].bytes.Or(refused)
	}
}
