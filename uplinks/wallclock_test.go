package uplinks

import (
	"testing"
	"time"
	"unsafe"
)

// jumped is a moment as the wall clock tells it after somebody has set it: another date, the same reading of the monotonic clock.
// A time.Time with both holds the seconds since 1885 in the 33 bits above the nanoseconds of its first word.
func jumped(t testing.TB, now time.Time, by time.Duration) time.Time {
	t.Helper()
	next := now
	*(*uint64)(unsafe.Pointer(&next)) += uint64(int64(by/time.Second)) << 30
	if next.Sub(now) != 0 || next.Round(0).Sub(now.Round(0)) != by {
		t.Fatalf("%s after %s is no jump by %s", next, now, by)
	}
	return next
}

// TestFault57_WallClockJumps: whatever date it is said to be, uplinks have the same states, and meters the same rates.
func TestFault57_WallClockJumps(t *testing.T) {
	const hour, years = time.Hour, 10 * 365 * 24 * time.Hour
	run := func(jumps ...time.Duration) (states []State, rates []float64) {
		tracker, meter := NewTracker(healthy()), NewMeter(NewDemand())
		begun := time.Now()
		world := twoISPs()
		for i := range 40 {
			now := begun.Add(time.Duration(i) * time.Second)
			if len(jumps) > 0 {
				now = jumped(t, now, jumps[i%len(jumps)])
			}
			tracker.Update(now, world.Facts)
			if err := tracker.SetHealth(0, IPv4, Health{Known: true, Usable: i%10 < 5}); err != nil {
				t.Fatal(err)
			}
			s, _ := tracker.Refresh(now)
			meter.Sample(now, Counters{RxBytes: uint64(i) * 1e6, TxBytes: uint64(i) * 1e5}, Estimate{}, 1)
			rx, tx := meter.Rates()
			states, rates = append(states, s.ByID(0).State), append(rates, rx, tx)
		}
		return states, rates
	}
	states, rates := run()
	for name, jumps := range map[string][]time.Duration{"an hour": {0, hour, 0, -hour}, "ten years": {-years, years, 0}} {
		again, more := run(jumps...)
		for i := range states {
			if again[i] != states[i] {
				t.Errorf("%s: state %d is %s, not %s", name, i, again[i], states[i])
			}
		}
		for i := range rates {
			if d := more[i] - rates[i]; d > rates[i]/1e6 || d < -rates[i]/1e6 {
				t.Errorf("%s: rate %d is %f, not %f", name, i, more[i], rates[i])
			}
		}
	}
}
