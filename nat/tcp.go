package nat

import (
	"sync/atomic"

	"tapgw/internal/packet"
)

// resetWindow is how much the remote may have sent beyond the latest acknowledgement of the inside for its RST right behind
// that to be believed.
const resetWindow = 1 << 18

// track notes what a segment shows and moves the state. It reports whether the segment refreshes the session.
//
// A RST ends the session softly (RFC 7857 §2.2): the state is kept for the transitory time, and the inside going on to
// send (which is how a host answers a RST it does not believe, RFC 5961 §3.2) revives it.
func (t *Table) track(r Ref, p *packet.Packet, d direction) (refresh bool) {
	own, flags := &t.counts[d][r], p.TCPFlags
	if flags&(packet.SYN|packet.RST) != 0 {
		t.settle(r) // these are judged by what the kernel has seen meanwhile
	}
	state := ownState(t.records[r].own.Load())
	switch {
	case !state.Live():
		return false
	case flags&packet.RST != 0:
		return t.trackReset(r, state, p, d)
	case reopens(state, flags, d), t.answersSYN(r, state, p, d):
		t.forget(r, tcpSeen)
	case flags&packet.SYN != 0 && d == inbound && state != TCPOpening:
		return false // the inside answers a blind one, and nothing has changed (RFC 5961 §4)
	case state == TCPReset && d == outbound:
		t.forget(r, rstSeen)
	case state.finished() && d == inbound:
		return false
	}
	own.sequence(p)
	if state == TCPEstablished && flags&(packet.SYN|packet.FIN) == 0 && t.counts[inbound][r].bytes.Load()&finSeen == 0 {
		return true
	}
	own.show(p)
	t.settle(r)
	return true
}

// answersSYN reports whether a SYN-ACK accepts a new connection of an inside that uses addresses and ports anew while the one
// before was never closed. The number acknowledged must be exact, as in what is to end a session.
func (t *Table) answersSYN(r Ref, s State, p *packet.Packet, d direction) bool {
	const both = packet.SYN | packet.ACK
	return d == inbound && s == TCPEstablished && p.TCPFlags&both == both && p.Ack == t.counts[outbound][r].seqEnd.Load()
}

// trackReset judges a RST. One of a session already over does not refresh it (RFC 7857 §7.1).
func (t *Table) trackReset(r Ref, state State, p *packet.Packet, d direction) (refresh bool) {
	if state.finished() || d == inbound && !t.believable(r, state, p) {
		return false
	}
	t.counts[d][r].bytes.Or(rstSeen)
	t.settle(r)
	return true
}

// forget clears flags in both directions.
func (t *Table) forget(r Ref, flags uint64) {
	t.counts[outbound][r].bytes.And(^flags)
	t.counts[inbound][r].bytes.And(^flags)
}

// current is the state of a record. That of TCP follows what a kernel program has seen without telling.
func (t *Table) current(r uint32) State {
	id := &t.records[r]
	if s := ownState(id.own.Load()); !s.Live() || uint8(id.ports.Load()>>8) != protoTCP {
		return s
	}
	t.settle(Ref(r))
	return ownState(id.own.Load())
}

// settle makes the state what the flags say. Both directions may come here at once: the loser looks again, so that the
// last state written has seen all flags.
func (t *Table) settle(r Ref) {
	id := &t.records[r]
	for {
		word := id.own.Load()
		old := ownState(word)
		s := tcpState(t.shown(r, old))
		if !old.Live() || old == Offered || old == s || id.own.CompareAndSwap(word, word&^ownStateMask|uint64(s)) {
			return
		}
	}
}

// shown is the flags of both directions. A FIN from outside counts once the inside has acknowledged all up to it, as a blind
// one would let the session end early.
func (t *Table) shown(r Ref, s State) (out, in uint64) {
	o, i := &t.counts[outbound][r], &t.counts[inbound][r]
	out, in = o.bytes.Load(), i.bytes.Load()
	settled := s == TCPClosingIn || s == TCPClosed
	if in&finSeen != 0 && !settled && int32(o.ack.Load()-i.seqEnd.Load()) < 0 {
		in &^= finSeen
	}
	return out, in
}

// believable reports whether a RST from outside in a state may be genuine (RFC 5961 §3.2): it answers the SYN, a side has
// already closed, or it is exactly where the inside expects the next byte, or where the remote's data ended, as
// acknowledgements lag. The inside answers any other with an acknowledgement, on which a genuine remote sends the
// exact one.
func (t *Table) believable(r Ref, s State, p *packet.Packet) bool {
	out, in := &t.counts[outbound][r], &t.counts[inbound][r]
	next, end := out.ack.Load(), in.seqEnd.Load()
	switch {
	case s == TCPClosingOut || s == TCPClosingIn:
		return true
	case out.bytes.Load()&ackSeen == 0:
		return p.TCPFlags&packet.ACK != 0 && p.Ack == out.seqEnd.Load()
	}
	return p.Seq == next || p.Seq == end && end-next <= resetWindow
}

// reopens reports whether a segment starts a new connection on the addresses and ports of one that ends.
func reopens(s State, flags uint8, d direction) bool {
	if flags&packet.SYN == 0 || flags&packet.ACK != 0 {
		return false
	}
	return s.finished() || d == outbound && (s == TCPClosingOut || s == TCPClosingIn)
}

// show sets the flags that a segment other than RST shows. Nothing comes after a FIN: one that is not at the highest end
// is none.
func (c *counters) show(p *packet.Packet) {
	var seen uint64
	if p.TCPFlags&packet.ACK != 0 {
		seen |= ackSeen
	}
	if p.TCPFlags&packet.FIN != 0 && p.SeqEnd == c.seqEnd.Load() {
		seen |= finSeen
	}
	if c.bytes.Load()&seen != seen {
		c.bytes.Or(seen)
	}
}

// sequence notes the highest end of sequence and the latest acknowledgement.
func (c *counters) sequence(p *packet.Packet) {
	first := p.TCPFlags&packet.SYN != 0 || c.bytes.Load()&ackSeen == 0
	advance(&c.seqEnd, p.SeqEnd, first)
	if p.TCPFlags&packet.ACK != 0 {
		advance(&c.ack, p.Ack, first)
	}
}

// advance moves a sequence number forward, or anywhere at the start of a connection.
func advance(to *atomic.Uint32, seq uint32, first bool) {
	if old := to.Load(); first && old != seq || int32(seq-old) > 0 {
		to.Store(seq)
	}
}

// tcpState derives the state from the flags of both directions.
func tcpState(out, in uint64) State {
	either, both := out|in, out&in
	switch {
	case both&finSeen != 0, either&rstSeen != 0 && (either&finSeen != 0 || both&ackSeen == 0):
		return TCPClosed
	case either&rstSeen != 0:
		return TCPReset
	case out&finSeen != 0:
		return TCPClosingOut
	case in&finSeen != 0:
		return TCPClosingIn
	case both&ackSeen != 0:
		return TCPEstablished
	}
	return TCPOpening
}
