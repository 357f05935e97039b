package nat

import "tapgw/internal/packet"

// Binding is the caller's decision for a new session: the uplink, what it has now, and why it was chosen.
type Binding struct {
	Uplink     uint8
	Generation uint32        // changes whenever sessions made before can no longer work; up to MaxGeneration
	Addresses  []packet.Addr // outside addresses, one pool
	Computed   packet.Addr   // instead of Addresses: the address that follows from the inside host's own (PrefixPair), with all ports
	Reason     uint8         // below 64
	Rule       uint32        // the caller's number of what chose the uplink, 0 for none
	Helped     bool          // an application helper must see the packets, until EndHelp
	Exact      bool          // the one address is this inside host's alone: the outside port is the inside port
	Inward     bool          // the remote began: Offered, and where the endpoint has a mapping, that stays the one of new sessions
	Turned     bool          // the remote is an outside endpoint of ours
	Move       bool          // of a session that is bound elsewhere and has not been answered
	Hop        uint8         // of the way to the inside endpoint: 0 for none of its own, HopDevice, or a number of the caller's

	port uint16 // that a new mapping must get outside, 0 for any
}

// Open makes the session of k on the uplink of b and returns it. Where k already has a session under the same uplink and
// generation, that one is returned; a session under another is ended and k bound anew. The endpoint keeps its mapping on
// the uplink (RFC 4787 REQ-1); a mapping elsewhere is replaced as the one new sessions use, and lives until its own
// sessions end. Errors: ErrTableFull, ErrNoPort, ErrBinding, ErrAnswered, and those of Limits. A refusal ends no session.
func (t *Table) Open(k Key, b Binding, now Tick) (Ref, error) {
	r, err := t.open(k, b, now)
	if err != nil {
		t.stats.refused(err)
	}
	return r, err
}

func (t *Table) open(k Key, b Binding, now Tick) (Ref, error) {
	if b.IsEmpty() || b.Generation > MaxGeneration {
		return 0, ErrBinding
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := uint32(t.FindOut(k))
	if old != 0 && t.boundTo(old, b) {
		t.swapState(Ref(old), Leaving, Active)
		return Ref(old), nil
	}
	if !t.mayMove(old, b) {
		return 0, ErrAnswered
	}
	r := t.peekFree()
	if r == 0 {
		return 0, ErrTableFull
	}
	if b.Inward && !t.mayOffer(k, b) {
		return 0, ErrTableFull
	}
	if old == 0 {
		if err := t.admit(k.Inside, now); err != nil {
			return 0, err
		}
	}
	m, err := t.mappingFor(k, b, now)
	if err != nil {
		return 0, err
	}
	s := firstState(k.Proto)
	if b.Inward {
		s = Offered
	}
	return t.enter(r, k, b, m, old, s, now)
}

// firstState is that of a session which the inside opens.
func firstState(proto uint8) State {
	if proto == protoTCP {
		return TCPOpening
	}
	return Active
}

// enter makes record r the session of k, which has its share of mapping m already, in the place of session old.
func (t *Table) enter(r uint32, k Key, b Binding, m, old uint32, s State, now Tick) (Ref, error) {
	t.write(r, k, b, m, s, now)
	if !t.publish(r, old) {
		t.bury(r, now)
		t.leave(m, unused, now)
		return 0, ErrTableFull
	}
	if old != 0 {
		t.hide(old)
		t.finish(old, now, abandoned)
	}
	t.hold(r, m, s)
	t.stats.opened(b.Uplink, k.Proto)
	if s != Offered { // else counted when it is answered, or a flood could use up the host's share
		t.rememberPair(r, k)
		t.countOpened(k.Inside, now)
	}
	return Ref(r), nil
}

// boundTo reports whether session r was made for the uplink and generation of b.
func (t *Table) boundTo(r uint32, b Binding) bool {
	id := &t.records[r]
	return uint8(id.ports.Load()) == b.Uplink && id.generation() == b.Generation
}

// peekFree returns the record that the next session will get, 0 when there is none.
func (t *Table) peekFree() uint32 {
	if t.freeHead != 0 {
		return t.freeHead
	}
	if n := t.used.Load(); int(n) < t.cfg.MaxSessions {
		return n + 1
	}
	return 0
}

// write claims record r and fills it. The own word comes last: it makes the record live for the sweep.
func (t *Table) write(r uint32, k Key, b Binding, m uint32, s State, now Tick) {
	id := &t.records[r]
	if r == t.freeHead {
		t.freeHead = ownLink(id.own.Load())
	}
	t.fill(r, &Translation{
		Key: k, Outside: t.mapping(m).outside, OutsidePort: t.mapping(m).outsidePort,
		Uplink: b.Uplink, Generation: b.Generation, Hop: b.Hop,
	})
	t.counts[outbound][r].reset(now)
	t.counts[inbound][r].reset(now)
	own := packOwn(s, b.Reason, m, now)
	if b.Helped {
		own |= ownHelped
	}
	if b.Turned {
		own |= ownTurned
	}
	t.setRule(r, b.Rule)
	id.own.Store(own)
	if r > t.used.Load() {
		t.used.Store(r)
	}
}

// publish makes a written record findable, inbound first so that no reply finds nothing. It takes over the outbound slot of
// old, if any. False when an index has no room: nothing is published then.
func (t *Table) publish(r, old uint32) bool {
	outHash, inHash := t.outHash(r), t.inHash(r)
	if !t.in.insert(inHash, r, t.inHash) {
		return false
	}
	if old != 0 {
		slot, _ := t.out.slotOf(outHash, old)
		t.out.words[slot].Store(indexWord(outHash, r))
		return true
	}
	if !t.out.insert(outHash, r, t.outHash) {
		t.in.remove(inHash, r)
		return false
	}
	return true
}

// outHash and inHash are the hashes of the keys of a record.
func (t *Table) outHash(r uint32) uint64 {
	tr := t.translation(r)
	return t.hash(tr.words())
}

func (t *Table) inHash(r uint32) uint64 {
	tr := t.translation(r)
	return t.hash(tr.InKey().words())
}
