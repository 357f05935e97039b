package nat

// Severed is a TCP session that was ended while both of its ends believe that it goes on.
type Severed struct {
	Key
	Hop  uint8  // of the way to the inside endpoint
	Next uint32 // sequence number that the inside expects next, as it last said
	End  uint32 // behind the last byte that it was sent
}

// severChunk is how many records are looked at under one lock, so that nobody who opens a session waits long.
const severChunk = 1024

// Sever ends the TCP sessions of an uplink that both sides have answered and that match, with their Binding.Rule, and appends them to list. Those that wait for
// a first answer can still go elsewhere. It looks at a part of the table, from record first on, and returns where the next begins, 0
// at the end. Ports rest: the remotes may still send.
func (t *Table) Sever(uplink uint8, match func(tr *Translation, rule uint32) bool, first uint32, now Tick, list []Severed) ([]Severed, uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	used := t.used.Load()
	last := min(used, max(1, first)+severChunk-1)
	for r := max(1, first); r <= last; r++ {
		ports := t.records[r].ports.Load()
		if uint8(ports) != uplink || uint8(ports>>8) != protoTCP || !t.isAnswered(r) {
			continue
		}
		if tr := t.translation(r); match(&tr, t.Rule(Ref(r))) {
			list = append(list, Severed{tr.Key, tr.Hop, t.counts[outbound][r].ack.Load(), t.counts[inbound][r].seqEnd.Load()})
			t.hide(r)
			t.finish(r, now, abandoned)
		}
	}
	if last == used {
		return list, 0
	}
	return list, last + 1
}

// isAnswered reports whether record r is a TCP session which the inside has acknowledged something in and that is not over.
func (t *Table) isAnswered(r uint32) bool {
	s := t.current(r)
	return s.Live() && s != Offered && !s.finished() && t.counts[outbound][r].bytes.Load()&ackSeen != 0
}
