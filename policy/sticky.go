package policy

import "hash/maphash"

// Bounds of a Sticky.
const (
	stickyShares  = 16 // a client's entries are in one of them, so that none makes all others' forgotten
	stickyBuckets = 128
	bucketSize    = 8
	stickySize    = stickyShares * stickyBuckets * bucketSize
	keptSessions  = 4
)

// Sticky remembers which candidate the sessions that belong together use, as those of a client with a site: as long as new ones
// come now and then, and as long as one of them lives. Its memory is fixed, and calls need one lock around them. The time
// now is of a clock that may wrap.
type Sticky struct {
	seed    maphash.Seed
	idle    uint32
	entries []stuck
}

// stuck is one entry. Of the sessions only the last are known.
type stuck struct {
	sum      uint64 // of the key, 0 for none
	seen     uint32 // when the last session came
	id       uint8
	sessions [keptSessions]uint32
}

// StickyKey is what sessions have in common that belong together.
type StickyKey struct {
	sum    uint64
	bucket uint32
}

// NewSticky returns an empty one that forgets what has had no new session for as long as idle.
func NewSticky(idle uint32) *Sticky {
	return &Sticky{seed: maphash.MakeSeed(), idle: idle, entries: make([]stuck, stickySize)}
}

// Key is that of a client and whatever else sessions must have in common. It allocates nothing.
func (s *Sticky) Key(client, rest []byte) StickyKey {
	share := maphash.Bytes(s.seed, client)
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.Write(client) // never fails
	_, _ = h.Write(rest)
	sum := h.Sum64()
	return StickyKey{sum: sum | 1, bucket: uint32(share%stickyShares*stickyBuckets + sum>>1%stickyBuckets)}
}

// Find returns the candidate that sessions of a key use. What has been idle for too long counts only while alive says so of
// a session that Keep was told.
func (s *Sticky) Find(k StickyKey, now uint32, alive func(session uint32) bool) (id uint8, ok bool) {
	for i := range s.bucket(k) {
		if e := &s.bucket(k)[i]; e.sum == k.sum {
			return e.id, int32(now-e.seen) < int32(s.idle) || e.lives(alive)
		}
	}
	return 0, false
}

// Keep remembers that a session uses a candidate, instead of what was seen longest ago if there is no room. Session numbers
// are not 0.
func (s *Sticky) Keep(k StickyKey, id uint8, session, now uint32, alive func(session uint32) bool) {
	e := s.place(k, now)
	if e.sum != k.sum || e.id != id {
		*e = stuck{sum: k.sum, id: id}
	}
	e.seen = now
	for i := range e.sessions {
		if old := &e.sessions[i]; *old == session || *old == 0 || !alive(*old) {
			*old = session
			return
		}
	}
}

// place is where a key is kept, or can be.
func (s *Sticky) place(k StickyKey, now uint32) *stuck {
	bucket := s.bucket(k)
	best := &bucket[0]
	for i := range bucket {
		e := &bucket[i]
		if e.sum == k.sum {
			return e
		}
		if best.sum != 0 && (e.sum == 0 || now-e.seen > now-best.seen) {
			best = e
		}
	}
	return best
}

func (s *Sticky) bucket(k StickyKey) []stuck {
	return s.entries[k.bucket*bucketSize:][:bucketSize]
}

func (e *stuck) lives(alive func(session uint32) bool) bool {
	for _, one := range e.sessions {
		if one != 0 && alive(one) {
			return true
		}
	}
	return false
}

// Considers reports whether a scheduler would choose among candidates with this one in it: those of a higher tier only stand by.
func Considers(s Scheduler, c []Candidate, index int) bool {
	_, all := s.(spanning)
	return all || c[index].Tier == lowestTier(c)
}
