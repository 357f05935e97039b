package nat

import (
	"encoding/binary"

	"tapgw/internal/packet"
)

const (
	codeFragNeeded = 4
	nextHopMTUAt   = 4 // in an ICMP error; of IPv4 16 bits, two bytes on

	// The least MTU that an error is believed about. Of IPv4 it is what Linux believes itself (ip_rt_min_pmtu), as an
	// Internet path with less is a forger's, who wants a host to send 68 bytes at a time; of IPv6 it is the least that there is.
	leastMTU   = 552
	leastMTUv6 = 1280 // RFC 8201 §4

	quotedSlack = 1 << 18 // how far back the quote is believed when the remote has acknowledged nothing yet
)

// Plausible reports whether an ICMP error from outside about session r, its translation tr, may come from somebody who has seen
// the packet quoted: one of TCP must be within what the inside has sent and the remote has not acknowledged (RFC 5927 §4.1).
// And no error may tell a path MTU that is too small to be true.
func (t *Table) Plausible(frame []byte, p *packet.Packet, r Ref, tr *Translation) bool {
	q, ok := parseQuote(frame, p)
	if !ok || !plausibleMTU(frame, p, &q) {
		return false
	}
	return q.proto != protoTCP || t.inFlight(r, binary.BigEndian.Uint32(frame[q.l4+4:]), tr.Helped)
}

// plausibleMTU judges what an error says of the path MTU. Old routers say nothing, whereupon a host goes by the length of what
// it sent (RFC 1191 §5): that must be larger then.
func plausibleMTU(frame []byte, p *packet.Packet, q *quote) bool {
	told := frame[p.L4:]
	if p.IPv6 {
		return p.ICMPType != packet.ICMPv6TooBig || binary.BigEndian.Uint32(told[nextHopMTUAt:]) >= leastMTUv6
	}
	if p.ICMPType != packet.ICMPUnreachable || told[1] != codeFragNeeded {
		return true
	}
	if mtu := binary.BigEndian.Uint16(told[nextHopMTUAt+2:]); mtu != 0 {
		return mtu >= leastMTU
	}
	return binary.BigEndian.Uint16(frame[q.l3+2:]) > leastMTU
}

// inFlight reports whether the inside may have sent a segment that begins at seq and is not acknowledged: from the byte before,
// which a keep-alive repeats, to the next one, where segments without payload are. Numbers of a session that a helper follows
// differ on its sides.
func (t *Table) inFlight(r Ref, seq uint32, helped bool) bool {
	out, in := &t.counts[outbound][r], &t.counts[inbound][r]
	if out.packets.Load() == 0 {
		return false
	}
	end := out.seqEnd.Load()
	back, ahead := uint32(quotedSlack), uint32(0)
	if unacked := end - in.ack.Load(); in.bytes.Load()&ackSeen != 0 && int32(unacked) >= 0 {
		back = unacked + 1
	}
	if helped {
		back, ahead = back+quotedSlack, quotedSlack
	}
	return end+ahead-seq <= back+ahead
}
