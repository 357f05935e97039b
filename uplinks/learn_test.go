package uplinks

import (
	"testing"
	"time"
)

// learning feeds a learner.
type learning struct {
	*Learner
	now   time.Time
	total Counters
}

func learn(assumed uint64) *learning {
	l := &learning{NewLearner(Capacity{Up: assumed, Down: assumed}), t0, Counters{}}
	l.Observe(l.now, l.total, Path{})
	return l
}

// carry has an uplink carry so many bits per second for a while, with that round trip.
func (l *learning) carry(d time.Duration, down, up float64, rtt time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		l.now = l.now.Add(250 * time.Millisecond)
		l.total.RxBytes += uint64(down / 8 / 4)
		l.total.TxBytes += uint64(up / 8 / 4)
		l.Observe(l.now, l.total, Path{Known: true, RTT: rtt})
	}
}

const (
	quiet   = 20 * time.Millisecond
	bloated = 120 * time.Millisecond
)

func TestLearner(t *testing.T) {
	for _, c := range []struct {
		name     string
		assumed  uint64
		feed     func(l *learning)
		down, up uint64
	}{
		{"nothing carried says nothing", 100 * mbit, func(l *learning) { l.carry(time.Minute, 0, 0, quiet) }, 100 * mbit, 100 * mbit},
		{"a little says nothing", 100 * mbit, func(l *learning) { l.carry(time.Minute, 30*mbit, mbit, quiet) }, 100 * mbit, 100 * mbit},
		{"a peak is possible", 100 * mbit, func(l *learning) { l.carry(2*time.Second, 150*mbit, mbit, quiet) }, 150 * mbit, 100 * mbit},
		{"a burst may be a token bucket's", 100 * mbit, func(l *learning) { l.carry(500*time.Millisecond, 900*mbit, 0, quiet) }, 100 * mbit, 100 * mbit},
		{"full at less than assumed", 1000 * mbit, func(l *learning) {
			l.carry(time.Second, 0, 0, quiet)
			l.carry(10*time.Second, 50*mbit, mbit, bloated)
		}, 50 * mbit, 1000 * mbit},
		{"full upwards", 100 * mbit, func(l *learning) {
			l.carry(time.Second, 0, 0, quiet)
			l.carry(10*time.Second, mbit, 10*mbit, bloated)
		}, 100 * mbit, 10 * mbit},
		{"a short queue is another's burst", 100 * mbit, func(l *learning) {
			for range 10 {
				l.carry(time.Second, 50*mbit, 0, quiet)
				l.carry(time.Second, 50*mbit, 0, bloated)
			}
		}, 100 * mbit, 100 * mbit},
		{"capacity halves and returns", 100 * mbit, func(l *learning) {
			l.carry(time.Second, 0, 0, quiet)
			l.carry(10*time.Second, 50*mbit, 0, bloated)
			l.carry(10*time.Second, 80*mbit, 0, bloated)
		}, 80 * mbit, 100 * mbit},
		{"chatter on a slow path", 100 * mbit, func(l *learning) {
			l.carry(time.Second, 0, 0, quiet)
			for range 20 {
				l.carry(250*time.Millisecond, 2*mbit, 0, bloated)
				l.carry(500*time.Millisecond, 0, 0, bloated)
			}
		}, 100 * mbit, 100 * mbit},
		{"what was learned fades", 100 * mbit, func(l *learning) {
			l.carry(time.Second, 0, 0, quiet)
			l.carry(10*time.Second, 50*mbit, 0, bloated)
			l.carry(5*fading, 0, 0, quiet)
		}, 100 * mbit, 100 * mbit},
		{"nothing known at all", 0, func(l *learning) { l.carry(5*time.Second, 7*mbit, 3*mbit, quiet) }, 7 * mbit, 3 * mbit},
	} {
		l := learn(c.assumed)
		c.feed(l)
		if got := l.Estimate(l.now); !near(got.Down, c.down) || !near(got.Up, c.up) {
			t.Errorf("%s: %+v, want %d down and %d up", c.name, got, c.down, c.up)
		}
	}
}

func near(got, want uint64) bool {
	return float64(got) > float64(want)*0.98 && float64(got) < float64(want)*1.02
}

func TestConfidence(t *testing.T) {
	l := learn(100 * mbit)
	if c := l.Estimate(l.now).Confidence; c != 0 {
		t.Errorf("%v before anything was carried", c)
	}
	l.carry(time.Second, 0, 0, quiet)
	l.carry(5*time.Second, 100*mbit, 0, bloated)
	if c := l.Estimate(l.now).Confidence; c < 0.99 {
		t.Errorf("%v of a full uplink", c)
	}
	if c := l.Estimate(l.now.Add(3 * time.Hour)).Confidence; c > 0.1 {
		t.Errorf("%v after three hours", c)
	}
}

// TestFullForHours: an uplink that is full for long without a pause is still known to be.
func TestFullForHours(t *testing.T) {
	l := learn(100 * mbit)
	l.carry(time.Second, 0, 0, quiet)
	l.carry(3*time.Hour, 50*mbit, mbit, bloated)
	if got := l.Estimate(l.now); !near(got.Down, 50*mbit) {
		t.Errorf("%+v, want 50 Mbit/s", got)
	}
	l.carry(time.Second, 0, 0, quiet)
	l.carry(10*time.Minute, 50*mbit, mbit, bloated)
	l.carry(10*time.Second, 25*mbit, mbit, bloated)
	if got := l.Estimate(l.now); !near(got.Down, 25*mbit) {
		t.Errorf("%+v once it has halved, want 25 Mbit/s", got)
	}
}

// A route that becomes longer is no queue for ever.
func TestLongerRouteIsNoQueue(t *testing.T) {
	l := learn(100 * mbit)
	l.carry(time.Second, 0, 0, quiet)
	l.carry(30*time.Minute, mbit, mbit, bloated)
	l.carry(10*time.Second, 30*mbit, mbit, bloated)
	if got := l.Estimate(l.now); got.Down < 29*mbit {
		t.Errorf("%+v", got)
	}
	if l.full != 0 {
		t.Errorf("%d readings queue", l.full)
	}
}

func TestLearnerTellsWhatProbesMustKnow(t *testing.T) {
	l, now, c := NewLearner(Capacity{Up: 1e9, Down: 1e9}), time.Unix(1, 0), Counters{}
	step := func(bits uint64, rtt time.Duration) {
		now, c.RxBytes = now.Add(250*time.Millisecond), c.RxBytes+bits/4/8
		l.Observe(now, c, Path{Known: true, RTT: rtt})
	}
	for range 20 {
		step(1000, 10*time.Millisecond)
	}
	if l.Receives() || l.Full(now) {
		t.Error("an idle uplink carries something")
	}
	for range 2 * fullReadings {
		step(20_000_000, 300*time.Millisecond)
	}
	if !l.Receives() || !l.Full(now) {
		t.Error("a full uplink carries nothing")
	}
	step(0, 300*time.Millisecond)
	if l.Receives() {
		t.Error("a dead uplink answers")
	}
	if now = now.Add(fullFor); l.Full(now) {
		t.Error("full for ever")
	}
}

// TestFullBehindBursts: a download that fills the link shows that, although what is sent in bursts hides what the link carries.
func TestFullBehindBursts(t *testing.T) {
	l := learn(100 * mbit)
	l.carry(time.Second, 0, 0, quiet)
	for range 10 {
		l.carry(250*time.Millisecond, 10*mbit, 40*mbit, bloated)
		l.carry(750*time.Millisecond, 10*mbit, mbit, bloated)
	}
	if e := l.Estimate(l.now); !l.Full(l.now) || e.Confidence > 0 || e.Down != 100*mbit {
		t.Errorf("full %t, %+v", l.Full(l.now), e)
	}
}
