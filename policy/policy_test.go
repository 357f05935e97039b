package policy

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustNew(tb testing.TB, name string) Scheduler {
	tb.Helper()
	s, err := New(name)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// candidates makes idle candidates of these capacities in Mbit/s, with IDs that are not their positions.
func candidates(mbit ...float64) []Candidate {
	c := make([]Candidate, len(mbit))
	for i := range c {
		c[i] = Candidate{ID: uint8(3 + 2*i), Weight: 1, Capacity: mbit[i] * 1e6}
	}
	return c
}

// tally counts the picks of n decisions on candidates that do not change.
func tally(s Scheduler, c []Candidate, n int) []int {
	count := make([]int, len(c))
	for range n {
		count[s.Pick(Request{}, c)]++
	}
	return count
}

func TestNamesAndNew(t *testing.T) {
	want := []string{"least-load", "weighted", "round-robin", "least-sessions", "lowest-latency", "overflow", "source-hash", "failover"}
	if got := Names(); !slices.Equal(got, want) || got[0] != Default {
		t.Fatalf("Names() = %v, want %v", got, want)
	}
	for _, name := range want {
		if got := mustNew(t, name).Name(); got != name {
			t.Errorf("New(%q).Name() = %q", name, got)
		}
	}
	_, err := New("fastest")
	for _, name := range want {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("New(\"fastest\") = %v, want an error that lists %s", err, name)
		}
	}
}

// each makes candidates of 100 Mbit/s, of which set takes a value each.
func each[T any](values []T, set func(*Candidate, T)) []Candidate {
	c := candidates(100, 100, 100)
	for i := range values {
		set(&c[i], values[i])
	}
	return c
}

func rates(mbit ...float64) []Candidate {
	return each(mbit, func(c *Candidate, v float64) { c.Rate = v * 1e6 })
}

func loads(l ...float64) []Candidate {
	return each(l, func(c *Candidate, v float64) { c.Load = v })
}

func latencies(ms ...time.Duration) []Candidate {
	return each(ms, func(c *Candidate, v time.Duration) { c.Latency = v * time.Millisecond })
}

func weights(w ...int) []Candidate {
	return each(w, func(c *Candidate, v int) { c.Weight = v })
}

func tiers(c []Candidate, tiers ...int) []Candidate {
	for i := range tiers {
		c[i].Tier = tiers[i]
	}
	return c
}

func sessions(capacities []float64, n ...int) []Candidate {
	c := candidates(capacities...)
	for i := range n {
		c[i].Sessions = n[i]
	}
	return c
}

// pickSequences are what a scheduler picks, time after time.
var pickSequences = []struct {
	name, scheduler string
	c               []Candidate
	want            []int
}{
	{"fastest", "least-load", rates(50, 80, 10), []int{1, 1, 1}},
	{"hardly any is more than none", "least-load", rates(0, 0.01, 0), []int{1, 1}},
	{"equals take turns", "least-load", rates(80, 80, 10), []int{0, 1, 0, 1}},
	{"noise is equal", "least-load", rates(99, 100, 99), []int{0, 1, 2, 0, 1, 2}},
	{"NaN is no recommendation", "least-load", rates(math.NaN(), 1, math.Inf(-1)), []int{1, 1}},
	{"all NaN still answers", "least-load", rates(math.NaN(), math.NaN(), math.NaN()), []int{0, 1, 2}},
	{"infinite is much", "least-load", rates(math.Inf(1), 10, math.Inf(1)), []int{0, 2, 0, 2}},

	{"shortest", "lowest-latency", latencies(20, 10, 50), []int{1, 1}},
	{"nobody notices a millisecond", "lowest-latency", latencies(11, 10, 50), []int{0, 1, 0, 1}},
	{"not known is long", "lowest-latency", latencies(0, 900, 0), []int{1, 1}},
	{"none known", "lowest-latency", candidates(100, 100), []int{0, 1, 0}},

	{"the first that is not full", "overflow", loads(0.85, 0.5, 0.1), []int{1, 1}},
	{"all full", "overflow", loads(0.95, 0.9, 1.2), []int{1, 1}},
	{"lower tiers first", "overflow", tiers(loads(0.1, 0.2, 0.3), 1, 0, 0), []int{1, 1}},
	{"full tiers overflow too", "overflow", tiers(loads(0.1, 0.9, 0.85), 1, 0, 0), []int{0, 0}},
	{"NaN is full", "overflow", loads(math.NaN(), 0.5), []int{1, 1}},
	{"smooth weights", "weighted", weights(5, 1, 1), []int{0, 0, 1, 0, 2, 0, 0}},
	{"weight below one is one", "weighted", weights(0, -7, 1), []int{0, 1, 2}},
	{"each in turn", "round-robin", candidates(100, 1, 1), []int{0, 1, 2, 0}},
	{"fewest sessions", "least-sessions", sessions([]float64{100, 100, 100}, 4, 2, 3), []int{1, 1}},
	{"sessions for the capacity", "least-sessions", sessions([]float64{100, 20}, 10, 3), []int{0, 0}},
	{"negative sessions are none", "least-sessions", sessions([]float64{100, 100}, math.MinInt, 0), []int{0, 1}},
	{"always the first", "failover", candidates(1, 100, 100), []int{0, 0, 0}},
}

func TestPickSequences(t *testing.T) {
	for _, tt := range pickSequences {
		t.Run(tt.scheduler+"/"+tt.name, func(t *testing.T) {
			s := mustNew(t, tt.scheduler)
			for i, want := range tt.want {
				if got := s.Pick(Request{}, tt.c); got != want {
					t.Fatalf("pick %d = %d, want %d", i, got, want)
				}
			}
		})
	}
}

func TestFailoverPrefersTheLowestTier(t *testing.T) {
	c := candidates(100, 100, 100)
	c[0].Tier, c[1].Tier, c[2].Tier = 2, 1, 1
	if got := (failover{}).Pick(Request{}, c); got != 1 {
		t.Fatalf("Pick = %d, want 1", got)
	}
}

func TestRoundRobinFollowsIDs(t *testing.T) {
	s := mustNew(t, "round-robin")
	c := candidates(1, 1, 1) // IDs 3, 5, 7
	if got := tally(s, c, 300); got[0] != 100 || got[1] != 100 {
		t.Fatalf("tally = %v, want 100 each", got)
	}
	s.Pick(Request{}, c) // 3
	if got := s.Pick(Request{}, c[1:]); got != 0 {
		t.Errorf("without ID 3: %d, want the next ID 5 at 0", got)
	}
	slices.Reverse(c)
	if got := s.Pick(Request{}, c); c[got].ID != 7 {
		t.Errorf("reversed: ID %d, want 7", c[got].ID)
	}
}

func TestRotationForgetsOldScales(t *testing.T) {
	s := mustNew(t, "least-load")
	tally(s, candidates(1e6, 1e6, 1e6), 1) // leaves credit behind on links of 1 Tbit/s
	if got := tally(s, candidates(0.1, 0.1), 20); got[0] < 8 || got[1] < 8 {
		t.Fatalf("tally = %v, want about 10 each", got)
	}
}

func TestSchedulersAreDeterministic(t *testing.T) {
	for _, name := range Names() {
		a, b := mustNew(t, name), mustNew(t, name)
		c := candidates(100, 20, 50, 50)
		for i := range 1000 {
			c[i%4].Load = float64(i*7919%100) / 100
			c[i%4].Sessions, c[i%4].Rate = i*31%17, float64(i*7907%100)
			if x, y := a.Pick(Request{}, c), b.Pick(Request{}, c); x != y {
				t.Fatalf("%s: pick %d differs: %d and %d", name, i, x, y)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, name := range Names() {
		s := mustNew(t, name)
		c := candidates(100, 20, 50, 50)
		c[1].Tier = 1
		if n := testing.AllocsPerRun(200, func() { Decide(s, Request{}, c) }); n != 0 {
			t.Errorf("%s: %v allocations per decision, want 0", name, n)
		}
	}
}

// FuzzDecide feeds every scheduler with arbitrary numbers, also NaN, infinities and repeated IDs.
func FuzzDecide(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c []Candidate
		for ; len(data) >= 37 && len(c) < maxCandidates; data = data[37:] {
			c = append(c, Candidate{
				ID: data[0], Tier: int(int8(data[1])), Weight: int(int8(data[2])),
				Sessions: int(int16(binary.LittleEndian.Uint16(data[3:]))),
				Capacity: math.Float64frombits(binary.LittleEndian.Uint64(data[5:])),
				Load:     math.Float64frombits(binary.LittleEndian.Uint64(data[13:])),
				Rate:     math.Float64frombits(binary.LittleEndian.Uint64(data[21:])),
				Latency:  time.Duration(binary.LittleEndian.Uint64(data[29:])),
			})
		}
		for _, name := range Names() {
			s := mustNew(t, name)
			for range 5 {
				d, ok := Decide(s, Request{Source: uint64(len(data))}, c)
				if ok != (len(c) > 0) {
					t.Fatalf("%s: ok = %v with %d candidates", name, ok, len(c))
				}
				_, all := s.(spanning)
				if ok && (c[d.Index].Tier != d.Tier || d.Tier != lowestTier(c) && !all) {
					t.Fatalf("%s: %+v is not in the lowest tier", name, d)
				}
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	for _, name := range Names() {
		b.Run(name, func(b *testing.B) {
			s := mustNew(b, name)
			c := candidates(100, 20, 50, 50)
			b.ReportAllocs()
			for b.Loop() {
				Decide(s, Request{}, c)
			}
		})
	}
}
