package nat

import "tapgw/internal/packet"

// HasPorts reports whether sessions of a protocol have an outside port, or identifier, of their own. Those of all others are
// told apart by the pair of addresses alone, and their ports are 0.
func HasPorts(proto uint8) bool { return proto == protoTCP || proto == protoUDP || isICMP(proto) }

// isNumbered is HasPorts for one endpoint: calls of PPTP (RFC 2637) have an identifier, other GRE has none.
func isNumbered(proto uint8, port uint16) bool { return HasPorts(proto) || port != 0 }

// takeOutside finds the outside endpoint of mapping m of k on b. Without ports that is an address by which no other inside host
// speaks this protocol with the same remote.
func (t *Table) takeOutside(k Key, b Binding, m uint32, now Tick) (outside packet.Addr, port uint16, err error) {
	if b.isComputed() {
		return t.takeComputed(k, b)
	}
	if isNumbered(k.Proto, k.InsidePort) {
		s, port, err := t.takePort(k, b, m, now)
		if err != nil {
			return packet.Addr{}, 0, err
		}
		return s.outside, port, nil
	}
	n := len(b.Addresses)
	start := t.firstAddress(k.Inside, n)
	for i := range n {
		a := b.Addresses[(start+i)%n]
		if r := t.FindIn(inKey(k, b.Uplink, a, 0)); r == 0 || t.Translation(r).Key == k { // else a session about to be replaced
			return a, 0, nil
		}
	}
	return packet.Addr{}, 0, ErrNoPort
}

// maxPairs bounds the memory of Table.pairs.
const maxPairs = 1 << 16

// pair is where the session of an inside host with a remote is remembered.
func (t *Table) pair(inside, remote packet.Addr) *uint32 {
	h := siphash(t.cfg.Seed, inside.Hi, inside.Lo, remote.Hi, remote.Lo)
	return &t.pairs[h>>32*uint64(len(t.pairs))>>32]
}

// rememberPair makes session r the one that Companion finds. One that lives keeps its place: what is related to it must go
// the same way for as long.
func (t *Table) rememberPair(r uint32, k Key) {
	if slot := t.pair(k.Inside, k.Remote); !t.Translation(Ref(*slot)).State.Live() {
		*slot = r
	}
}

// Companion returns the uplink on which an inside host already has a session with a remote: the oldest, as a rule. It may
// miss one when there are many. Protocols without ports go the same way, as ESP does with IKE and GRE with what
// negotiated it, or the remote could not tell that they belong together.
func (t *Table) Companion(inside, remote packet.Addr) (uplink uint8, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.Translation(Ref(*t.pair(inside, remote)))
	return tr.Uplink, tr.State.Live() && tr.State != Leaving && tr.Inside == inside && tr.Remote == remote
}

// isSummed reports whether a packet without ports of ours has a checksum over its addresses: UDP-Lite (RFC 3828 §3.1) and DCCP
// (RFC 4340 §9.1), but not their later fragments.
func isSummed(frame []byte, p *packet.Packet) bool {
	at := p.ChecksumOffset()
	return at != 0 && !HasPorts(p.Proto) && !isLater(frame, p) && at+2 <= int(p.L3)+int(p.Len)
}
