package policy

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

const stickyIdle = 100

func keyOf(s *Sticky, client, site uint32) StickyKey {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], client)
	binary.BigEndian.PutUint32(b[4:], site)
	return s.Key(b[:4], b[4:])
}

func nobody(uint32) bool { return false }

func TestSticky(t *testing.T) {
	start := uint32(1<<32 - 50) // close to where the clock wraps
	s := NewSticky(stickyIdle)
	k := keyOf(s, 1, 1)
	expect := func(id uint8, ok bool, now uint32, alive func(uint32) bool) {
		t.Helper()
		if got, found := s.Find(k, now, alive); found != ok || ok && got != id {
			t.Fatalf("at %d: %d, %v, want %d, %v", now-start, got, found, id, ok)
		}
	}
	expect(0, false, start, nobody)
	s.Keep(k, 3, 7, start, nobody)
	expect(3, true, start+stickyIdle-1, nobody)
	expect(0, false, start+stickyIdle, nobody)
	expect(3, true, start+10*stickyIdle, func(session uint32) bool { return session == 7 })

	s.Keep(k, 5, 8, start+60, nobody) // moved
	expect(5, true, start+60+stickyIdle-1, nobody)
	expect(0, false, start+10*stickyIdle, func(session uint32) bool { return session == 7 })

	k = keyOf(s, 1, 2)
	expect(0, false, start, nobody)
	k = keyOf(s, 2, 1)
	expect(0, false, start, nobody)
}

// TestStickySessions: as long as one of some sessions lives they belong together, whichever that is.
func TestStickySessions(t *testing.T) {
	for long := uint32(1); long <= 10; long++ {
		s, live := NewSticky(stickyIdle), map[uint32]bool{}
		k := keyOf(s, 1, 1)
		alive := func(session uint32) bool { return live[session] }
		for session := uint32(1); session <= 10; session++ {
			live[session] = true
			s.Keep(k, 1, session, session, alive)
			if session != long {
				delete(live, session)
			}
		}
		if _, ok := s.Find(k, 1000, alive); !ok {
			t.Errorf("session %d lives, but the key is forgotten", long)
		}
	}
}

// TestStickyFlood: memory is fixed, and one client makes only those of its share forgotten.
func TestStickyFlood(t *testing.T) {
	s := NewSticky(stickyIdle)
	const clients = 64
	for c := range uint32(clients) {
		s.Keep(keyOf(s, 1000+c, 1), 1, 1, 0, nobody)
	}
	for site := range uint32(4 * stickySize) {
		s.Keep(keyOf(s, 1, site), 2, 1, 1, nobody)
	}
	kept := 0
	for c := range uint32(clients) {
		if _, ok := s.Find(keyOf(s, 1000+c, 1), 1, nobody); ok {
			kept++
		}
	}
	if kept < clients/2 || len(s.entries) != stickySize {
		t.Errorf("%d of %d others are remembered, %d entries", kept, clients, len(s.entries))
	}
}

// TestStickyAsAModel: with so few keys that none has to make room it is like a map.
func TestStickyAsAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSticky(stickyIdle)
		type kept struct {
			id   uint8
			seen uint32
		}
		model, now := map[[2]uint32]kept{}, uint32(1<<32-200)
		small := rapid.Uint32Range(1, 3)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now += rapid.Uint32Range(0, stickyIdle/2).Draw(t, "later")
			at := [2]uint32{small.Draw(t, "client"), small.Draw(t, "site") % 2}
			k, id := keyOf(s, at[0], at[1]), uint8(small.Draw(t, "id"))
			want, known := model[at]
			known = known && now-want.seen < stickyIdle
			if got, ok := s.Find(k, now, nobody); ok != known || ok && got != want.id {
				t.Fatalf("%v: %d, %v, want %+v, %v", at, got, ok, want, known)
			}
			if rapid.Bool().Draw(t, "keep") {
				s.Keep(k, id, 1, now, nobody)
				model[at] = kept{id, now}
			}
		}
	})
}

func TestStickyAllocatesNothing(t *testing.T) {
	s, n := NewSticky(stickyIdle), uint32(0)
	if allocs := testing.AllocsPerRun(100, func() {
		n++
		k := keyOf(s, n, 1)
		s.Keep(k, 1, n, 0, func(session uint32) bool { return session == n })
		s.Find(k, 1, func(session uint32) bool { return session == n })
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestConsiders(t *testing.T) {
	c := candidates(100, 100, 100)
	c[1].Tier = 1
	for name, want := range map[string][]bool{Default: {true, false, true}, "overflow": {true, true, true}} {
		for i := range c {
			if got := Considers(mustNew(t, name), c, i); got != want[i] {
				t.Errorf("%s: candidate %d: %v", name, i, got)
			}
		}
	}
}

func FuzzSticky(f *testing.F) {
	f.Add([]byte("client"), []byte("site"), uint8(1), uint32(1), uint32(1))
	f.Add([]byte{}, []byte{}, uint8(255), uint32(1<<32-1), uint32(stickyIdle))
	f.Fuzz(func(t *testing.T, client, rest []byte, id uint8, session, later uint32) {
		s := NewSticky(stickyIdle)
		k := s.Key(client, rest)
		for i := range uint32(bucketSize + 2) {
			s.Keep(keyOf(s, i, later), id+1, session, i, nobody)
		}
		s.Keep(k, id, session|1, later, nobody)
		if got, ok := s.Find(k, later, nobody); !ok || got != id {
			t.Fatalf("%d, %v, want %d", got, ok, id)
		}
		if _, ok := s.Find(k, later+stickyIdle, nobody); ok {
			t.Fatal("not forgotten")
		}
	})
}

func BenchmarkSticky(b *testing.B) {
	s, n := NewSticky(stickyIdle), uint32(0)
	for b.Loop() {
		n++
		k := keyOf(s, n&1023, 1)
		s.Find(k, n, nobody)
		s.Keep(k, 1, n, n, nobody)
	}
}

func TestNeedsNames(t *testing.T) {
	for _, c := range []struct {
		group, rule Stickiness
		domains     []string
		want        bool
	}{
		{StickyAuto, StickySession, nil, true}, {StickySite, StickySession, nil, true}, {StickySession, StickyClient, nil, false},
		{StickyClient, StickySession, nil, false}, {StickySession, StickySite, nil, true}, {StickySession, StickySession, []string{"x.example"}, true},
	} {
		p := NewPlan(Default)
		p.Groups[0].Stickiness = c.group
		p.Rules = []Rule{{Action: Action{Stickiness: c.rule}, Domains: c.domains}}
		if got := p.NeedsNames(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
