package uplinks

import (
	"strings"
	"testing"
	"time"
)

// flapper is an uplink whose cable is pulled again and again.
type flapper struct {
	*testing.T
	*Tracker
	*world
	now time.Time
}

func newFlapper(t *testing.T, halfLife time.Duration) *flapper {
	cfg := healthy()
	cfg.Flapping = halfLife
	f := &flapper{t, NewTracker(cfg), twoISPs(), t0}
	f.Update(f.now, f.Facts)
	return f
}

// pull takes the carrier away for a time.
func (f *flapper) pull(out time.Duration) {
	f.link(2).Carrier = false
	f.expect(0, Down)
	f.link(2).Carrier = true
	f.now = f.now.Add(out)
	f.Update(f.now, f.Facts)
}

// expect looks at the state of the uplink after a time.
func (f *flapper) expect(later time.Duration, want State) (reason string) {
	f.Helper()
	f.now = f.now.Add(later)
	s, _ := f.Update(f.now, f.Facts)
	u := byName(f.T, s, "eth0")
	if u.State != want {
		f.Errorf("%s after the start it is %s (%s), not %s", f.now.Sub(t0), u.State, u.Reason, want)
	}
	if other := byName(f.T, s, "eth1"); other.State != Up {
		f.Errorf("the other is %s", other.State)
	}
	return u.Reason
}

// TestFlapping: the third fall in a minute makes an uplink degraded, until it has been up for two minutes.
func TestFlapping(t *testing.T) {
	f := newFlapper(t, time.Minute)
	f.pull(time.Second)
	f.expect(10*time.Second, Up)
	f.pull(time.Second)
	f.expect(10*time.Second, Up)
	f.pull(time.Second)
	if reason := f.expect(0, Degraded); !strings.Contains(reason, "for another 1m") {
		t.Error(reason)
	}
	f.expect(100*time.Second, Degraded)
	f.expect(20*time.Second, Up)
	f.pull(time.Second)
	f.expect(0, Up) // what was is forgiven
}

// TestFlappingFor: the more it falls the longer it takes, up to four half-lives; a fall meanwhile begins that anew.
func TestFlappingFor(t *testing.T) {
	f := newFlapper(t, time.Minute)
	for range 100 {
		f.pull(time.Second)
		f.now = f.now.Add(time.Second)
	}
	f.expect(230*time.Second, Degraded)
	f.pull(time.Second)
	f.expect(60*time.Second, Degraded)
	f.expect(30*time.Second, Up)
}

// TestStumbles: what is back at once has not fallen.
func TestStumbles(t *testing.T) {
	f := newFlapper(t, time.Minute)
	for range 20 {
		f.pull(20 * time.Millisecond)
		f.expect(time.Second, Up)
	}
}

// TestSeldomFalls are no flapping, nor is anything where that is switched off.
func TestSeldomFalls(t *testing.T) {
	f := newFlapper(t, time.Minute)
	for range 20 {
		f.pull(time.Second)
		f.expect(70*time.Second, Up)
	}
	f = newFlapper(t, 0)
	for range 20 {
		f.pull(time.Second)
		f.expect(time.Second, Up)
	}
}
