package policy

import (
	"math"
	"math/rand/v2"
	"testing"
)

// world is a closed loop around a scheduler: sessions of 1 Mbit/s for an exponential time, loads read every 250 ms, and a
// charge for what was placed since, as the caller of a scheduler keeps it.
type world struct {
	c       []Candidate
	foreign []float64 // bits per second that are not ours
	ends    [][]int   // tick at which each session ends
	charge  float64   // bits per second assumed for a placed session, 0 for none
	placed  []int
	volume  []float64 // session ticks carried
	peak    float64   // highest difference of utilisation between two candidates after warm-up
}

const (
	sessionRate = 1e6
	ticksPerSec = 100
	readEvery   = 25 // ticks: 250 ms
)

func newWorld(charge float64, c []Candidate) *world {
	return &world{
		c: c, charge: charge, foreign: make([]float64, len(c)), ends: make([][]int, len(c)),
		placed: make([]int, len(c)), volume: make([]float64, len(c)),
	}
}

// run offers on average rate sessions a second of a mean length for some seconds.
func (w *world) run(s Scheduler, rate, meanSeconds float64, seconds int) {
	rng := rand.New(rand.NewPCG(1, 2))
	for tick := range seconds * ticksPerSec {
		w.expire(tick)
		if tick%readEvery == 0 {
			w.read(tick > 20*ticksPerSec)
		}
		for n := rng.ExpFloat64(); n < rate/ticksPerSec; n += rng.ExpFloat64() {
			d, _ := Decide(s, w.c)
			w.place(d.Index, tick+1+int(rng.ExpFloat64()*meanSeconds*ticksPerSec))
		}
	}
}

func (w *world) place(i, end int) {
	w.placed[i]++
	w.ends[i] = append(w.ends[i], end)
	w.c[i].Sessions++
	w.c[i].Load += w.charge / w.c[i].Capacity
}

func (w *world) expire(tick int) {
	for i := range w.c {
		live := w.ends[i][:0]
		for _, end := range w.ends[i] {
			if end > tick {
				live = append(live, end)
			}
		}
		w.ends[i] = live
		w.c[i].Sessions = len(live)
		w.volume[i] += float64(len(live))
	}
}

func (w *world) read(warm bool) {
	lowest, highest := math.Inf(1), 0.0
	for i := range w.c {
		used := w.foreign[i] + float64(len(w.ends[i]))*sessionRate
		w.c[i].Load = used / w.c[i].Capacity
		lowest, highest = math.Min(lowest, w.c[i].Load), math.Max(highest, w.c[i].Load)
	}
	if warm {
		w.peak = math.Max(w.peak, highest-lowest)
	}
}

func TestByteSharesFollowCapacities(t *testing.T) {
	for _, name := range []string{"least-load", "least-sessions"} {
		w := newWorld(sessionRate, candidates(100, 20))
		w.run(mustNew(t, name), 36, 2, 200) // 72 of 120 Mbit/s
		share := w.volume[0] / (w.volume[0] + w.volume[1])
		if math.Abs(share-100.0/120) > 0.1*20/120 {
			t.Errorf("%s: share of the faster = %.3f, want %.3f within 10 %% of either capacity", name, share, 100.0/120)
		}
	}
}

func TestForeignTrafficIsAvoided(t *testing.T) {
	w := newWorld(sessionRate, candidates(100, 100))
	w.foreign[0] = 80e6
	w.run(mustNew(t, "least-load"), 20, 1, 100) // 20 Mbit/s of our own
	if part := float64(w.placed[1]) / float64(w.placed[0]+w.placed[1]); part < 0.8 {
		t.Fatalf("%.2f of the new sessions took the free candidate, want at least 0.80", part)
	}
}

// TestChargePreventsHerding shows why loads must include what was placed: without it one reading's sessions go together.
func TestChargePreventsHerding(t *testing.T) {
	run := func(charge float64) float64 {
		w := newWorld(charge, candidates(100, 20))
		w.run(mustNew(t, "least-load"), 144, 0.5, 100)
		return w.peak
	}
	with, without := run(sessionRate), run(0)
	if with > 0.5 || without < 2*with {
		t.Fatalf("largest difference of utilisation %.2f with the charge, %.2f without", with, without)
	}
}

func TestShortSessionsOnIdleLinksAreSpread(t *testing.T) {
	w := newWorld(0, candidates(100, 20)) // gone before any reading sees them, and never charged
	w.run(mustNew(t, "least-load"), 1, 0.001, 600)
	total := float64(w.placed[0] + w.placed[1])
	if share := float64(w.placed[0]) / total; math.Abs(share-100.0/120) > 0.1 {
		t.Fatalf("share of the faster = %.2f of %v sessions, want about 0.83", share, total)
	}
}

func TestStaticShares(t *testing.T) {
	c := candidates(100, 20, 100)
	c[0].Weight, c[1].Weight, c[2].Weight = 3, 2, 1
	tests := map[string][]int{
		"weighted":    {3000, 2000, 1000},
		"round-robin": {2000, 2000, 2000},
		"failover":    {6000, 0, 0},
		"least-load":  {2727, 545, 2727},
	}
	for name, want := range tests {
		for i, got := range tally(mustNew(t, name), c, 6000) {
			if got < want[i]-1 || got > want[i]+1 {
				t.Errorf("%s: candidate %d got %d of 6000, want %d", name, i, got, want[i])
			}
		}
	}
}
