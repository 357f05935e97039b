package uplinks

import (
	"math"
	"sync"
	"testing"
	"time"
)

const mbit = 1_000_000

// place puts sessions on the meter with the least load, as the scheduler does, and counts them.
func place(sessions int, meters ...*Meter) []int {
	counts := make([]int, len(meters))
	for range sessions {
		best := 0
		for i, m := range meters {
			if m.Load() < meters[best].Load() {
				best = i
			}
		}
		meters[best].Charge()
		counts[best]++
	}
	return counts
}

// assumed is a capacity that nobody has seen.
func assumed(up, down uint64) Estimate { return Estimate{Capacity: Capacity{Up: up, Down: down}} }

// feed samples m every 250 ms for a while with constant rates in bits per second.
func feed(m *Meter, from time.Time, d time.Duration, rx, tx float64, rate uint64, sessions int) time.Time {
	var c Counters
	const step = 250 * time.Millisecond
	m.mu.Lock()
	c = m.last
	m.mu.Unlock()
	for end := from.Add(d); !from.After(end); from = from.Add(step) {
		m.Sample(from, c, assumed(rate, rate), sessions)
		c.RxBytes += uint64(rx * step.Seconds() / 8)
		c.TxBytes += uint64(tx * step.Seconds() / 8)
	}
	return from
}

func TestPlacementWithinOneIntervalFollowsCapacity(t *testing.T) {
	d := NewDemand()
	fast, slow := NewMeter(d), NewMeter(d)
	slow.Sample(t0, Counters{}, assumed(20*mbit, 20*mbit), 0)
	fast.Sample(t0, Counters{}, assumed(100*mbit, 100*mbit), 0)
	counts := place(1000, fast, slow)
	if ratio := float64(counts[0]) / float64(counts[1]); ratio < 4.8 || ratio > 5.2 {
		t.Fatalf("split %v, ratio %.2f, want 5", counts, ratio)
	}
}

func TestPlacementFollowsCapacityOnceDemandIsLearned(t *testing.T) {
	d := NewDemand()
	fast, slow := NewMeter(d), NewMeter(d)
	at := t0
	for range 40 { // both half full, the slow one with throttled sessions
		feed(slow, at, 0, 10*mbit, mbit, 20*mbit, 50)
		feed(fast, at, 0, 50*mbit, mbit, 100*mbit, 50)
		at = at.Add(250 * time.Millisecond)
	}
	counts := place(1000, fast, slow)
	if ratio := float64(counts[0]) / float64(counts[1]); ratio < 4 || ratio > 6 {
		t.Fatalf("split %v, ratio %.2f, want about 5", counts, ratio)
	}
}

func TestBusyUplinkIsAvoided(t *testing.T) {
	for _, live := range []int{0, 1, 30} {
		d := NewDemand()
		busy, idle := NewMeter(d), NewMeter(d)
		feed(busy, t0, 5*time.Second, 80*mbit, mbit, 100*mbit, live)
		feed(idle, t0, 5*time.Second, 0, 0, 100*mbit, 0)
		if l := busy.Load(); math.Abs(l-0.8) > 0.01 {
			t.Fatalf("load %.3f, want 0.8", l)
		}
		if counts := place(150, busy, idle); counts[0] >= 30 {
			t.Errorf("with %d live sessions %d of 150 went to the busy uplink", live, counts[0])
		}
	}
}

// TestBusySpellIsForgotten: downloads begun soon after one uplink was full for a while are not all sent to the other, which
// then would be the full one.
func TestBusySpellIsForgotten(t *testing.T) {
	const downloads = 16
	d := NewDemand()
	one, other := NewMeter(d), NewMeter(d)
	at := feed(one, t0, 10*time.Second, 95*mbit, mbit, 100*mbit, downloads)
	feed(other, t0, 10*time.Second, 0, 0, 100*mbit, 0)
	feed(one, at, 2*time.Second, 0, 0, 100*mbit, 0)
	feed(other, at, 2*time.Second, 0, 0, 100*mbit, 0)
	if counts := place(downloads, one, other); counts[0] < downloads/3 {
		t.Errorf("two seconds after it was full, %d of %d went to the uplink", counts[0], downloads)
	}
}

func TestUploadCountsAsWell(t *testing.T) {
	m := NewMeter(NewDemand())
	var c Counters
	for i := range 8 {
		m.Sample(t0.Add(time.Duration(i)*time.Second), c, assumed(10*mbit, 100*mbit), 0)
		c.RxBytes, c.TxBytes = c.RxBytes+10*mbit/8, c.TxBytes+5*mbit/8
	}
	if l := m.Load(); math.Abs(l-0.5) > 0.01 {
		t.Fatalf("load %.3f, want the upload's 0.5", l)
	}
	if rx, tx := m.Rates(); math.Abs(rx-10*mbit) > 1 || math.Abs(tx-5*mbit) > 1 {
		t.Fatalf("rates %.0f %.0f", rx, tx)
	}
}

func TestRateRisesAtOnceAndFallsSmoothly(t *testing.T) {
	m := NewMeter(NewDemand())
	at := feed(m, t0, 500*time.Millisecond, 50*mbit, 0, 100*mbit, 1)
	if rx, _ := m.Rates(); rx < 49*mbit {
		t.Fatalf("rate %.0f did not rise at once", rx)
	}
	feed(m, at, 250*time.Millisecond, 0, 0, 100*mbit, 1) // the first sample still carries the last traffic
	if rx, _ := m.Rates(); rx < 15*mbit || rx > 31*mbit {
		t.Fatalf("rate %.0f soon after it fell silent", rx)
	}
	feed(m, at.Add(500*time.Millisecond), 10*time.Second, 0, 0, 100*mbit, 1)
	if rx, _ := m.Rates(); rx > mbit {
		t.Fatalf("rate %.0f after ten seconds of silence", rx)
	}
}

func TestChargesDecay(t *testing.T) {
	m := NewMeter(NewDemand())
	at := feed(m, t0, time.Second, 0, 0, 100*mbit, 0)
	place(100, m)
	charged := m.Load()
	if charged < 0.05 {
		t.Fatalf("load %.3f right after 100 sessions", charged)
	}
	at = feed(m, at, time.Second, 0, 0, 100*mbit, 0)
	if l := m.Load(); l > charged/2 {
		t.Fatalf("load %.3f a second later, was %.3f", l, charged)
	}
	feed(m, at, time.Minute, 0, 0, 100*mbit, 0)
	if l := m.Load(); l != 0 {
		t.Fatalf("load %v a minute later", l)
	}
}

func TestCountersGoingBackwardsMakeNoSpike(t *testing.T) {
	m := NewMeter(NewDemand())
	sample := func(ms int, bytes uint64) {
		m.Sample(t0.Add(time.Duration(ms)*time.Millisecond), Counters{RxBytes: bytes, TxBytes: bytes}, assumed(100*mbit, 100*mbit), 1)
	}
	sample(0, 1<<32-1000)
	sample(250, 1<<32-500)
	sample(500, 100) // a 32-bit driver has wrapped
	sample(501, 1<<31)
	sample(750, 600)
	if l := m.Load(); l > 0.01 {
		t.Fatalf("load %.3f", l)
	}
	m.Charge()
	m.Reset()
	sample(1000, 1<<50) // a new interface
	sample(1250, 1<<50+1000)
	if l := m.Load(); l > 0.01 {
		t.Fatalf("load %.3f after reset", l)
	}
}

func TestMeterIsSafeForConcurrentUse(t *testing.T) {
	d := NewDemand()
	m := NewMeter(d)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				m.Charge()
				if l := m.Load(); l < 0 || math.IsNaN(l) {
					t.Errorf("load %v", l)
					return
				}
			}
		})
	}
	feed(m, t0, 20*time.Second, mbit, mbit, 10*mbit, 3)
	wg.Wait()
	feed(m, t0.Add(time.Minute), time.Minute, 0, 0, 10*mbit, 0)
	if c := m.charges.Load(); c != 0 {
		t.Fatalf("%d charges left", c)
	}
}
