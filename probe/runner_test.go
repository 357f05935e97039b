package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var testLink = Link{Name: "u1", Index: 1, Source: netip.AddrFrom4([4]byte{192, 0, 2, 2})}

// world answers probes: path says whether a probe sent now gets through, and after how long or with which error.
type world struct {
	path   func(now time.Time, t Target) (delay time.Duration, alive bool, err error)
	probes atomic.Int64
}

func (w *world) Probe(ctx context.Context, _ Link, t Target) (time.Duration, error) {
	w.probes.Add(1)
	delay, alive, err := w.path(time.Now(), t)
	if !alive && err == nil {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return delay, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// start runs a Runner in the current bubble; stop ends it and waits for all its goroutines.
func start(t *testing.T, plan Plan, w *world, report func(Verdict)) (r *Runner, stop func()) {
	t.Helper()
	r, err := NewRunner(plan, w, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx, testLink, report) }()
	return r, func() { cancel(); <-done }
}

// The bound of the issue, for every phase of the cut relative to the rounds and several round-trip times: 1.5 s where nobody is
// far off.
func TestBlackholeDetection(t *testing.T) {
	plan := DefaultPlan()
	for rtt, bound := range map[time.Duration]time.Duration{
		ms(1): ms(1300), ms(40): ms(1300), ms(90): ms(1500), ms(300): ms(2000), ms(790): ms(3300), ms(990): ms(4000),
	} {
		var worst, sum time.Duration
		n := 0
		for phase := time.Duration(0); phase < plan.Interval; phase += 5 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				took := detect(t, plan, rtt, 5*time.Second+phase)
				worst, sum, n = max(worst, took), sum+took, n+1
			})
		}
		t.Logf("round trip %v: detection in %v on average, at worst %v", rtt, (sum / time.Duration(n)).Round(time.Millisecond), worst)
		if worst > bound {
			t.Errorf("round trip %v: detection took %v, want at most %v", rtt, worst, bound)
		}
	}
}

// A suspicion that is right is confirmed in half a second, and one that is wrong changes nothing.
func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(20), !dead.Load(), nil }}
		plan := DefaultPlan().Sparing()
		down := make(chan time.Time, 1)
		r, stop := start(t, plan, w, func(v Verdict) {
			if !v.Usable {
				down <- time.Now()
			}
		})
		defer stop()
		time.Sleep(4 * time.Minute)
		before := w.probes.Load()
		r.Suspect()
		time.Sleep(time.Second) // the next suspicion finds that it was asked just now
		if n := w.probes.Load() - before; n != 1 || len(down) > 0 {
			t.Errorf("%d probes, %d times down", n, len(down))
		}
		dead.Store(true)
		began := time.Now()
		r.Suspect()
		if took := (<-down).Sub(began); took > 600*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestUplinksAreAskedTogether: whenever their runners began, uplinks are asked at the same instants before long, and none is asked later
// than it would be alone.
func TestUplinksAreAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := DefaultPlan()
		var mu sync.Mutex
		var asked [3][]time.Time
		for i := range asked {
			path := func(now time.Time, _ Target) (time.Duration, bool, error) {
				mu.Lock()
				defer mu.Unlock()
				asked[i] = append(asked[i], now)
				return ms(5 * i), true, nil
			}
			_, stop := start(t, plan, &world{path: path}, func(Verdict) {})
			defer stop()
			time.Sleep(ms(170))
		}
		time.Sleep(15 * plan.Interval)
		mu.Lock()
		defer mu.Unlock()
		for i := range asked {
			for n := 1; n < len(asked[i]); n++ {
				if pause := asked[i][n].Sub(asked[i][n-1]); pause > plan.Interval {
					t.Errorf("uplink %d was not asked for %v", i, pause)
				}
			}
			if last := asked[i][len(asked[i])-1]; !last.Equal(asked[0][len(asked[0])-1]) {
				t.Errorf("uplink %d was asked %v later than the first", i, last.Sub(asked[0][len(asked[0])-1]))
			}
		}
	})
}

// detect cuts the path in both directions after some time and returns how long the runner took to see it.
func detect(t *testing.T, plan Plan, rtt, after time.Duration) time.Duration {
	cut := time.Now().Add(after)
	path := func(now time.Time, _ Target) (time.Duration, bool, error) {
		return rtt, now.Add(rtt).Before(cut), nil
	}
	seen := make(chan time.Time, 1)
	up := false
	_, stop := start(t, plan, &world{path: path}, func(v Verdict) {
		if up && !v.Usable {
			seen <- time.Now()
		}
		up = v.Usable
	})
	at := <-seen
	stop()
	return at.Sub(cut)
}

func TestErrorsAreFasterThanSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := func(time.Time, Target) (time.Duration, bool, error) { return ms(5), false, errors.New("down") }
		seen := make(chan Verdict, 1)
		began := time.Now()
		_, stop := start(t, DefaultPlan(), &world{path: path}, func(v Verdict) {
			if v.Known {
				select {
				case seen <- v:
				default:
				}
			}
		})
		<-seen
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %v", d)
		}
		stop()
	})
}

// TestFault05_RandomLoss: with each packet lost at random by 5 and 20 %, both ways, ten gateways are never called dead in half an
// hour, and the loss is reported.
func TestFault05_RandomLoss(t *testing.T) {
	for _, oneWay := range []float64{0.05, 0.2} {
		both := 1 - (1-oneWay)*(1-oneWay)
		var down, degraded, reports, loss = 0, 0, 0, 0.0
		for seed := range uint64(10) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(seed, 2))
				path := func(time.Time, Target) (time.Duration, bool, error) {
					mu.Lock()
					defer mu.Unlock()
					return ms(30), random.Float64() >= both, nil
				}
				_, stop := start(t, DefaultPlan(), &world{path: path}, func(v Verdict) {
					reports++
					loss += v.Loss
					if v.Known && !v.Usable {
						down++
					}
					if v.Degraded {
						degraded++
					}
				})
				time.Sleep(30 * time.Minute)
				stop()
			})
		}
		mean := loss / float64(reports)
		t.Logf("loss %.3f, measured %.3f", both, mean)
		if down > 0 || reports < 10*2000 {
			t.Errorf("%d reports, %d of them down", reports, down)
		}
		if few := oneWay < 0.1; few && degraded > 0 || !few && degraded < reports/2 {
			t.Errorf("%d of %d reports degraded", degraded, reports)
		}
		if mean < both-0.05 || mean > both+0.05 {
			t.Errorf("mean loss %v of %v", mean, both)
		}
	}
}

// Recovery: Rise rounds after the path is back, and the first ever good round at once.
func TestRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		cut, back := began.Add(4*time.Second), began.Add(20*time.Second)
		path := func(now time.Time, _ Target) (time.Duration, bool, error) {
			return ms(20), now.Before(cut) || now.After(back), nil
		}
		var changes []time.Duration
		usable := false
		_, stop := start(t, DefaultPlan(), &world{path: path}, func(v Verdict) {
			if v.Usable != usable {
				changes = append(changes, time.Since(began))
			}
			usable = v.Usable
		})
		time.Sleep(30 * time.Second)
		stop()
		if len(changes) != 3 {
			t.Fatalf("changes at %v, want up, down, up", changes)
		}
		if changes[0] > ms(25) {
			t.Errorf("first up after %v", changes[0])
		}
		if up := changes[2] - 20*time.Second; up > ms(1700) {
			t.Errorf("up again %v after the path was back", up)
		}
	})
}

// A round asks one target, now and then all, is at most Interval after the one before, and is reported once.
func TestCostPerRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(20), true, nil }}
		plan := DefaultPlan()
		reports := 0
		_, stop := start(t, plan, w, func(Verdict) { reports++ })
		const rounds = 200
		time.Sleep(rounds * plan.Interval)
		stop()
		if reports < rounds || reports > rounds*10/9+1 {
			t.Errorf("%d reports in %d intervals", reports, rounds)
		}
		checks := int(rounds*plan.Interval/plan.Checks) + 2
		if n := int(w.probes.Load()); n > reports+1+checks*len(plan.Targets) {
			t.Errorf("%d probes for %d rounds", n, reports)
		}
	})
}

func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(1), true, nil }}
		plan := DefaultPlan()
		plan.Interval = time.Minute
		r, stop := start(t, plan, w, func(Verdict) {})
		defer stop()
		time.Sleep(30 * time.Second)
		before := w.probes.Load()
		r.Suspect()
		synctest.Wait()
		if n := w.probes.Load() - before; n != int64(len(plan.Targets)-1) { // no content
			t.Errorf("%d probes right after Suspect", n)
		}
		for range 1000 { // a storm for a minute
			r.Suspect()
			time.Sleep(60 * time.Millisecond)
		}
		if n := w.probes.Load() - before; n > int64((maxKicks+2)*len(plan.Targets)) {
			t.Errorf("%d probes in a storm of events", n)
		}
	})
}

// TestFault59_Starvation, and fault 58: a process that does not run for seconds, again and again, does not lose the uplink.
func TestFault59_Starvation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(20), true, nil }}
		down := 0
		_, stop := start(t, DefaultPlan(), w, func(v Verdict) {
			if !v.Usable {
				down++
			}
			time.Sleep(time.Duration(rand.IntN(4000)) * time.Millisecond) // the loop stands still meanwhile
		})
		time.Sleep(10 * time.Minute)
		stop()
		if down > 0 {
			t.Errorf("%d reports of an uplink that is down", down)
		}
	})
}

// Probes that hang until they are cancelled do not hold up the end of Run, and none outlives it.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return 0, false, nil }}
		_, stop := start(t, DefaultPlan(), w, func(Verdict) {})
		time.Sleep(10 * time.Second)
		began := time.Now()
		stop()
		if d := time.Since(began); d > 0 {
			t.Errorf("Run ended %v after its context", d)
		}
	}) // synctest fails if a goroutine is left
}
