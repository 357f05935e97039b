package probe

import (
	"errors"
	"math"
	"testing"
	"time"
)

var epoch = time.Unix(1_000_000, 0)

// at is a moment of a test, milliseconds after its beginning.
func at(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// twoTargets is the default plan with two pinged targets.
func twoTargets() Plan {
	p := DefaultPlan()
	p.Targets = p.Targets[:2]
	return p
}

func wantVerdict(t *testing.T, j *Judge, now time.Time, known, usable bool, reason string) {
	t.Helper()
	v := j.Verdict(now)
	if v.Known != known || v.Usable != usable || v.Reason != reason {
		t.Errorf("at %v: %+v; want known %v, usable %v, reason %q", now.Sub(epoch), v, known, usable, reason)
	}
}

// silence lets n rounds fail, one after the other from start on, and returns when the last is over.
func silence(j *Judge, start, n int) int {
	for range n {
		j.Begin(at(start))
		start += 1000
		j.Expire(at(start))
	}
	return start
}

func TestJudgeHysteresis(t *testing.T) {
	j := NewJudge(twoTargets())
	wantVerdict(t, j, at(0), false, false, "not probed yet")
	silence(j, 0, 1)
	wantVerdict(t, j, at(1000), false, false, "not probed yet")
	silence(j, 1000, 1)
	wantVerdict(t, j, at(2000), true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")

	j.Reply(at(3010), j.Begin(at(3000)), 0, ms(10))
	wantVerdict(t, j, at(3010), true, true, "") // warm start

	silence(j, 4000, 1)
	wantVerdict(t, j, at(5000), true, true, "")
	silence(j, 5000, 5)
	wantVerdict(t, j, at(10000), true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")

	j.Reply(at(11010), j.Begin(at(11000)), 1, ms(10))
	wantVerdict(t, j, at(11010), true, false, "answers again (1 of 2 rounds)")
	silence(j, 12000, 1)
	j.Reply(at(14010), j.Begin(at(14000)), 1, ms(10))
	wantVerdict(t, j, at(14010), true, false, "answers again (1 of 2 rounds)")
	j.Reply(at(15010), j.Begin(at(15000)), 1, ms(10))
	wantVerdict(t, j, at(15010), true, true, "")
}

func TestJudgeQuorum(t *testing.T) {
	plan := twoTargets()
	plan.Quorum = 2
	j := NewJudge(plan)
	for i := range 2 {
		n := j.Begin(at(1000 * i))
		if j.Reply(at(1000*i+10), n, 0, ms(10)) {
			t.Error("one reply decided a round with quorum 2")
		}
		j.Expire(at(1000*i + 1000))
	}
	wantVerdict(t, j, at(2000), true, false, "no reply from 8.8.8.8 (2 rounds)")
}

func TestJudgeErrorsDecideAtOnce(t *testing.T) {
	j := NewJudge(twoTargets())
	refused := errors.New("network unreachable")
	for i := range 2 {
		n := j.Begin(at(i))
		if j.Fail(n, 0, refused) {
			t.Error("decided while the other target may answer")
		}
		if !j.Fail(n, 1, refused) {
			t.Error("not decided although no target is left")
		}
		if j.Fail(n, 1, refused) {
			t.Error("one round was decided twice")
		}
	}
	wantVerdict(t, j, at(2), true, false, "1.1.1.1: network unreachable; 8.8.8.8: network unreachable (2 rounds)")
}

// A later round that is answered while an earlier one is still open excuses its loss.
func TestJudgeOverlap(t *testing.T) {
	j := NewJudge(twoTargets())
	j.Reply(at(10), j.Begin(at(0)), 0, ms(10))
	for i := 1; i < 20; i++ { // every second round is lost
		n := j.Begin(at(800 * i))
		if i%2 == 0 {
			j.Reply(at(800*i+10), n, 0, ms(10))
		}
		j.Expire(at(800*i + 200))
		wantVerdict(t, j, at(800*i+200), true, true, "")
	}
}

// Fault 6: replies that need two seconds keep the uplink up, its RTT and loss tell.
func TestJudgeSlowLink(t *testing.T) {
	j := NewJudge(twoTargets())
	j.Reply(at(10), j.Begin(at(0)), 0, ms(10))
	for i := 1; i <= 30; i++ {
		now := 800 * i
		j.Begin(at(now))
		j.Expire(at(now + 200))
		if i > 2 {
			j.Reply(at(now+400), uint64(i-2), 0, ms(2000))
		}
	}
	now := at(800*30 + 401)
	wantVerdict(t, j, now, true, true, "")
	if v := j.Verdict(now); v.RTT < ms(1900) || v.Loss < 0.9 {
		t.Errorf("got %+v, want an RTT near 2 s and a loss near 1", v)
	}
}

// One late reply may end several open rounds, but is one good sign only.
func TestJudgeOneReplyIsOneGoodRound(t *testing.T) {
	j := NewJudge(twoTargets())
	j.Reply(at(10), j.Begin(at(0)), 0, ms(10))
	silence(j, 1000, 2)
	n := j.Begin(at(4000))
	j.Begin(at(4800))
	j.Reply(at(4850), n, 0, ms(850))
	wantVerdict(t, j, at(4850), true, false, "answers again (1 of 2 rounds)")
	if _, open := j.Deadline(); open {
		t.Error("a round is still open")
	}
}

// Faults 58 and 59: after a pause the open rounds count for nothing.
func TestJudgePause(t *testing.T) {
	j := NewJudge(twoTargets())
	j.Reply(at(10), j.Begin(at(0)), 0, ms(10))
	silence(j, 800, 1)
	j.Begin(at(1900))
	j.Begin(at(2700))
	if j.Expire(at(60_000)) {
		t.Error("a pause decided a round")
	}
	wantVerdict(t, j, at(60_000), true, true, "")
	if v := j.Verdict(at(60_000)); v.Loss != 0.5 {
		t.Errorf("loss %v, want 0.5: void rounds count for nothing", v.Loss)
	}
	silence(j, 61_000, 1)
	wantVerdict(t, j, at(62_000), true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")
}

// Rounds that end in one late wake-up were not watched one after the other.
func TestJudgeLateWakeCountsOnce(t *testing.T) {
	j := NewJudge(twoTargets())
	j.Reply(at(10), j.Begin(at(0)), 0, ms(10))
	j.Begin(at(800))
	j.Begin(at(1600))
	j.Expire(at(2700))
	wantVerdict(t, j, at(2700), true, true, "")
}

func TestJudgeLossIsOfTheBestTarget(t *testing.T) {
	j := NewJudge(twoTargets())
	for i := range 100 { // the first target is dead, the second answers four times of five
		n := j.Begin(at(1000 * i))
		if i%5 != 0 {
			j.Reply(at(1000*i+30), n, 1, ms(30))
		}
		j.Expire(at(1000*i + 1000))
	}
	v := j.Verdict(at(100_000))
	if math.Abs(v.Loss-0.2) > 0.04 || v.RTT != ms(30) || !v.Usable {
		t.Errorf("got %+v, want loss 0.2 and RTT 30 ms", v)
	}
}

func TestJudgeForgetsOldRounds(t *testing.T) {
	j := NewJudge(twoTargets())
	n := j.Begin(at(0))
	silence(j, 1000, window)
	if j.Fail(n, 0, errors.New("late")) {
		t.Error("a forgotten round was decided")
	}
	j.Reply(at(90_000), n, 0, ms(90_000))
	if v := j.Verdict(at(90_000)); v.RTT != 0 {
		t.Errorf("a forgotten round was measured: %v", v.RTT)
	}
	for i := range 3 * window { // never expired
		j.Begin(at(100_000 + i))
	}
	if first, ok := j.Deadline(); !ok || first.Before(at(100_000+2*window)) {
		t.Errorf("the oldest open round ends at %v", first.Sub(epoch))
	}
}
