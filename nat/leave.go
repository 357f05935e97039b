package nat

// Leave has the session of k bound anew with its next packet from inside, if it is one of the uplink that can be: TCP cannot. Until
// then it goes on as before, what it receives too, but no packet is a hit of a kernel program.
func (t *Table) Leave(k Key, uplink uint8) bool {
	r := uint32(t.FindOut(k))
	if r == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint8(t.records[r].ports.Load()) == uplink && t.turnInto(r, Active, Leaving)
}

// turnInto makes the state of a record that is in state from another.
func (t *Table) turnInto(r uint32, from, to State) bool {
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
