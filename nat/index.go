package nat

import "sync/atomic"

// index finds numbers (of records or mappings) by hash. A key may lie in one of two buckets. Readers need no lock; writers
// hold the table's. Each word is tag<<32 | number, 0 when free.
type index struct {
	words   []atomic.Uint64
	buckets uint32
	moves   atomic.Uint32 // entries moved to their other bucket, ever
}

// buckets is how many an index of so many records has.
func buckets(records int) int { return (max(1, records) + regionFill - 1) / regionFill * region }

func newIndex(records int) *index {
	n := buckets(records)
	return &index{words: make([]atomic.Uint64, n*bucketSlots), buckets: uint32(n)}
}

// indexIn is an index of n buckets in given memory.
func indexIn(memory []byte, n int) *index {
	return &index{words: elements[atomic.Uint64](memory, n*bucketSlots), buckets: uint32(n)}
}

func indexWord(h uint64, n uint32) uint64 { return h<<32 | uint64(n) }

// candidates returns the first slots of the two buckets of h: by multiply-shift of two bit ranges of it, then turned within
// the region by its lowest bits.
func (x *index) candidates(h uint64) (int, int) {
	turn := uint32(h % region)
	a := uint32(h>>32*uint64(x.buckets)>>32) ^ turn
	b := uint32(h>>16&0xffffffff*uint64(x.buckets)>>32) ^ turn
	if a == b {
		b ^= 1
	}
	return int(a) * bucketSlots, int(b) * bucketSlots
}

// find returns the number under h that match accepts, and its slot; 0 when there is none.
func (x *index) find(h uint64, match func(uint32) bool) (n uint32, slot int) {
	a, b := x.candidates(h)
	for {
		moves := x.moves.Load()
		for _, first := range [2]int{a, b} {
			bucket := x.words[first : first+bucketSlots : first+bucketSlots]
			for i := range bucket {
				w := bucket[i].Load()
				if w>>32 == h&0xffffffff && w != 0 && match(uint32(w)) {
					return uint32(w), first + i
				}
			}
		}
		if moves == x.moves.Load() { // else it may have moved behind our back
			return 0, 0
		}
	}
}

// slotOf returns the slot that holds exactly n under h.
func (x *index) slotOf(h uint64, n uint32) (slot int, ok bool) {
	found, slot := x.find(h, func(m uint32) bool { return m == n })
	return slot, found != 0
}

// insert publishes n under h in the emptier of its buckets. When both are full it moves an entry to its other bucket: at
// our load that is needed for one insert in a hundred, and enough for all. hash gives the hash of an entry. False when
// there is no room at all.
func (x *index) insert(h uint64, n uint32, hash func(uint32) uint64) bool {
	a, b := x.candidates(h)
	freeA, slot := x.room(a)
	freeB, slotB := x.room(b)
	if freeB > freeA {
		slot = slotB
	}
	if freeA+freeB == 0 {
		var ok bool
		if slot, ok = x.makeRoom(a, hash); !ok {
			if slot, ok = x.makeRoom(b, hash); !ok {
				return false
			}
		}
	}
	x.words[slot].Store(indexWord(h, n))
	return true
}

// makeRoom moves an entry of a full bucket to its other one and returns the slot it had. The entry is in both for a
// moment, never in neither.
func (x *index) makeRoom(first int, hash func(uint32) uint64) (slot int, ok bool) {
	for slot = first; slot < first+bucketSlots; slot++ {
		w := x.words[slot].Load()
		other, b := x.candidates(hash(uint32(w)))
		if other == first {
			other = b
		}
		if free, to := x.room(other); free > 0 {
			x.words[to].Store(w)
			x.moves.Add(1)
			x.words[slot].Store(0)
			return slot, true
		}
	}
	return 0, false
}

// room counts the free slots of a bucket and returns one of them.
func (x *index) room(first int) (free, slot int) {
	for i := first; i < first+bucketSlots; i++ {
		if x.words[i].Load() == 0 {
			free, slot = free+1, i
		}
	}
	return free, slot
}

// remove clears the slot of n under h, if n is there.
func (x *index) remove(h uint64, n uint32) {
	if slot, ok := x.slotOf(h, n); ok {
		x.words[slot].Store(0)
	}
}
