package probe

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
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
	r, err := NewRunner(plan, w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx, testLink, report) }()
	return r, func() { cancel(); <-done }
}

// The bound of the issue, for every phase of the cut relative to the rounds and several round-trip times.
func TestBlackholeDetection(t *testing.T) {
	plan := DefaultPlan()
	bound := time.Duration(plan.Fall)*plan.Interval + plan.Timeout
	if bound > 3*time.Second {
		t.Fatalf("the defaults allow %v", bound)
	}
	var worst time.Duration
	for _, rtt := range []time.Duration{ms(1), ms(40), ms(300), ms(790), ms(990)} {
		for phase := time.Duration(0); phase < plan.Interval; phase += 5 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) { worst = max(worst, detect(t, plan, rtt, 5*time.Second+phase)) })
		}
	}
	t.Logf("worst detection %v, bound %v", worst, bound)
	if worst > bound {
		t.Errorf("detection took %v, want at most %v", worst, bound)
	}
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

// Five per cent of probes are lost at random: 2,000 rounds without a false alarm, and the loss is reported.
func TestRandomLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		draw := make(chan bool)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				select {
				case draw <- random.Float64() < 0.05:
				case <-ctx.Done():
					return
				}
			}
		}()
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(30), !<-draw, nil }}
		var reports, down int
		var loss float64
		_, stop := start(t, DefaultPlan(), w, func(v Verdict) {
			reports++
			loss += v.Loss
			if v.Known && !v.Usable {
				down++
			}
		})
		time.Sleep(2000 * DefaultPlan().Interval)
		stop()
		cancel()
		if down > 0 || reports < 2000 {
			t.Errorf("%d reports, %d of them down", reports, down)
		}
		if mean := loss / float64(reports); mean > 0.06 {
			t.Errorf("mean loss %v", mean)
		}
	})
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

// Each round asks each target once, is at most Interval after the one before, and is reported once.
func TestCostPerRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(20), true, nil }}
		plan := DefaultPlan()
		reports := 0
		_, stop := start(t, plan, w, func(Verdict) { reports++ })
		const rounds = 100
		time.Sleep(rounds * plan.Interval)
		stop()
		if reports < rounds || reports > rounds*10/9+1 {
			t.Errorf("%d reports in %d intervals", reports, rounds)
		}
		if n := int(w.probes.Load()); n > (reports+1)*len(plan.Targets) {
			t.Errorf("%d probes for %d rounds", n, reports)
		}
	})
}

func TestKick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{path: func(time.Time, Target) (time.Duration, bool, error) { return ms(1), true, nil }}
		plan := DefaultPlan()
		plan.Interval = time.Minute
		r, stop := start(t, plan, w, func(Verdict) {})
		defer stop()
		time.Sleep(30 * time.Second)
		before := w.probes.Load()
		r.Kick()
		synctest.Wait()
		if n := w.probes.Load() - before; n != int64(len(plan.Targets)) {
			t.Errorf("%d probes right after Kick", n)
		}
		for range 1000 { // a storm for a minute
			r.Kick()
			time.Sleep(60 * time.Millisecond)
		}
		if n := w.probes.Load() - before; n > int64((maxKicks+2)*len(plan.Targets)) {
			t.Errorf("%d probes in a storm of kicks", n)
		}
	})
}

// Faults 58 and 59: a process that does not run for seconds, again and again, does not lose the uplink.
func TestStarvation(t *testing.T) {
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
