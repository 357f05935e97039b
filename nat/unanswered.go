package nat

import "errors"

// ErrAnswered is returned by Open with Binding.Move for a session that has been answered, or has ended.
var ErrAnswered = errors.New("nat: this session has been answered or has ended")

// Answered reports whether anything has come back on a session.
func (t *Table) Answered(r Ref) bool { return t.counts[inbound][r].packets.Load() != 0 }

// Alone reports whether a session is all that its mapping is for, so that its endpoint may get another.
func (t *Table) Alone(r Ref) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	word := t.records[r].own.Load()
	if !ownState(word).Live() {
		return false
	}
	m := t.mapping(ownLink(word))
	return m.sessions == 1 && m.reserved == 0
}

// Doubt makes an active session that nothing has come back on one that is no hit, so that Go sees its next packet; Trust, or a
// packet from outside, ends that.
func (t *Table) Doubt(r Ref) {
	if t.Answered(r) || !t.swapState(r, Active, Unanswered) {
		return
	}
	if t.Answered(r) { // meanwhile, by a kernel program
		t.Trust(r)
	}
}

// Trust undoes Doubt.
func (t *Table) Trust(r Ref) { t.swapState(r, Unanswered, Active) }

// swapState replaces one state of a session by another, and reports whether it did.
func (t *Table) swapState(r Ref, from, to State) bool {
	own := &t.records[r].own
	for {
		word := own.Load()
		if ownState(word) != from {
			return false
		}
		if own.CompareAndSwap(word, word&^ownStateMask|uint64(to)) {
			return true
		}
	}
}

// mayMove reports whether session old, 0 for none, may be bound anew by b.
func (t *Table) mayMove(old uint32, b Binding) bool {
	return !b.Move || old != 0 && !t.Answered(Ref(old))
}
