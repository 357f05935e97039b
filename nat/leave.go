package nat

// Leave has the session of k bound anew with its next packet from inside, if it is one of the uplink that can be: TCP cannot. Until
// then it goes on as before, what it receives too, but no packet is a hit of a kernel program.
func (t *Table) Leave(k Key, uplink uint8) bool {
	r := t.FindOut(k)
	if r == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return uint8(t.records[r].ports.Load()) == uplink && t.swapState(r, Active, Leaving)
}
