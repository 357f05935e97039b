package probe

import (
	"errors"
	"math"
	"math/bits"
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
	p.Targets, p.Fall = p.Targets[:2], 2
	return p
}

func wantVerdict(t *testing.T, j *Judge, known, usable bool, reason string) {
	t.Helper()
	v := j.Verdict()
	if v.Known != known || v.Usable != usable || !v.Degraded && v.Reason != reason {
		t.Errorf("got %+v; want known %v, usable %v, reason %q", v, known, usable, reason)
	}
}

// begin opens a round.
func begin(j *Judge, now int) uint64 {
	n, _ := j.Begin(at(now))
	return n
}

// silence lets n rounds fail, one after the other from start on, and returns when the last is over.
func silence(j *Judge, start, n int) int {
	for range n {
		begin(j, start)
		over, _ := j.Deadline()
		start = int(over.Sub(epoch) / time.Millisecond)
		j.Expire(at(start))
	}
	return start
}

// judged is a Judge of two targets that have answered in 10 ms for a while, and when that ends.
func judged() (j *Judge, now int) {
	j = NewJudge(twoTargets(), nil)
	for range 20 {
		n, asked := j.Begin(at(now))
		for ; asked != 0; asked &= asked - 1 {
			j.Reply(at(now+10), n, bits.TrailingZeros16(asked), ms(10))
		}
		now += 700
	}
	return j, now
}

func TestJudgeHysteresis(t *testing.T) {
	j := NewJudge(twoTargets(), nil)
	wantVerdict(t, j, false, false, "not probed yet")
	silence(j, 0, 1)
	wantVerdict(t, j, false, false, "not probed yet")
	silence(j, 1000, 1)
	wantVerdict(t, j, true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")

	j.Reply(at(3010), begin(j, 3000), 0, ms(10))
	wantVerdict(t, j, true, true, "") // warm start

	silence(j, 4000, 2) // the first is a suspicion only
	wantVerdict(t, j, true, true, "")
	silence(j, 5000, 5)
	wantVerdict(t, j, true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")

	j.Reply(at(11010), begin(j, 11000), 1, ms(10))
	wantVerdict(t, j, true, false, "answers again (1 of 2 rounds)")
	silence(j, 12000, 1)
	j.Reply(at(14010), begin(j, 14000), 1, ms(10))
	wantVerdict(t, j, true, false, "answers again (1 of 2 rounds)")
	j.Reply(at(15010), begin(j, 15000), 1, ms(10))
	wantVerdict(t, j, true, true, "")
}

// While all is well only as many targets are asked as must answer; a late one has all asked in haste.
func TestJudgeSuspects(t *testing.T) {
	j, now := judged()
	n, asked := j.Begin(at(now))
	if bits.OnesCount16(asked) != 1 || j.Pause() != j.plan.Interval {
		t.Errorf("asked %b, the next round in %v", asked, j.Pause())
	}
	over, _ := j.Deadline()
	if over != at(now).Add(shortestWait) {
		t.Errorf("the round is over after %v", over.Sub(at(now)))
	}
	if j.Expire(over) {
		t.Error("a suspicion is no verdict")
	}
	if j.Pause() != Haste {
		t.Errorf("the next round comes in %v", j.Pause())
	}
	if _, asked = j.Begin(over); asked != 0b11 {
		t.Errorf("asked %b", asked)
	}
	j.Reply(over.Add(ms(50)), n, 0, ms(150))
	if wantVerdict(t, j, true, true, ""); j.Pause() != j.plan.Interval {
		t.Error("a late answer did not end the suspicion")
	}
}

// Suspect has everybody asked once, but not again and again.
func TestJudgeIsTold(t *testing.T) {
	j, now := judged()
	for i, want := range []int{2, 1, 1, 1, 2} {
		j.Suspect(at(now + 200*i))
		n, asked := j.Begin(at(now + 200*i))
		if got := bits.OnesCount16(asked); got != want {
			t.Errorf("round %d asked %d targets, not %d", i, got, want)
		}
		j.Reply(at(now+200*i+10), n, 0, ms(10))
	}
	sparing := NewJudge(twoTargets().Sparing(), nil)
	sparing.Reply(at(10), begin(sparing, 0), 0, ms(10))
	sparing.Suspect(at(1000))
	if _, asked := sparing.Begin(at(1000)); bits.OnesCount16(asked) != 1 {
		t.Errorf("a sparing plan asked %b", asked)
	}
}

func TestJudgeQuorum(t *testing.T) {
	plan := twoTargets()
	plan.Quorum = 2
	j := NewJudge(plan, nil)
	for i := range 2 {
		n := begin(j, 1000*i)
		if j.Reply(at(1000*i+10), n, 0, ms(10)) {
			t.Error("one reply decided a round with quorum 2")
		}
		j.Expire(at(1000*i + 1000))
	}
	wantVerdict(t, j, true, false, "no reply from 8.8.8.8 (2 rounds)")
}

// Fault 24: however often the gateway answers, it is what is behind it that counts.
func TestJudgeGatewayIsNoHealth(t *testing.T) {
	plan := twoTargets()
	plan.Targets[0] = Target{Kind: ARP}
	j := NewJudge(plan, nil)
	for i := range 2 {
		j.Reply(at(1000*i+10), begin(j, 1000*i), 0, ms(10))
		j.Expire(at(1000*i + 1000))
	}
	wantVerdict(t, j, true, false, "no reply from 8.8.8.8 (2 rounds)")
}

func TestJudgeErrorsDecideAtOnce(t *testing.T) {
	j := NewJudge(twoTargets(), nil)
	refused := errors.New("network unreachable")
	for i := range 2 {
		n := begin(j, i)
		if j.Fail(at(i), n, 0, refused) {
			t.Error("decided while the other target may answer")
		}
		if !j.Fail(at(i), n, 1, refused) {
			t.Error("not decided although no target is left")
		}
		if j.Fail(at(i), n, 1, refused) {
			t.Error("one round was decided twice")
		}
	}
	wantVerdict(t, j, true, false, "1.1.1.1: network unreachable; 8.8.8.8: network unreachable (2 rounds)")
}

// Every second round is lost: no reason to call the uplink dead.
func TestJudgeOverlap(t *testing.T) {
	j, now := judged()
	for i := range 20 {
		now += 700
		n := begin(j, now)
		if i%2 == 0 {
			j.Reply(at(now+10), n, 0, ms(10))
		}
		j.Expire(at(now + 100))
		wantVerdict(t, j, true, true, "")
	}
}

// TestFault06_SlowLink: replies that need two seconds keep the uplink up, its RTT and loss tell.
func TestFault06_SlowLink(t *testing.T) {
	j, start := judged()
	for delay := 10; delay < 2000; delay += 400 { // the queue fills
		start += 700
		j.Reply(at(start+delay), begin(j, start), 0, ms(delay))
	}
	start += 2000
	for i := range 100 {
		now := start + 700*i
		for over, ok := j.Deadline(); ok && over.Before(at(now)); over, ok = j.Deadline() {
			j.Expire(over)
		}
		n := begin(j, now)
		if i > 2 {
			j.Reply(at(now+599), n-2, 0, ms(2000))
		}
		wantVerdict(t, j, true, true, "")
	}
	if v := j.Verdict(); v.RTT < ms(1900) || v.Loss < 0.9 || v.Reason != "answers take 2s" {
		t.Errorf("got %+v, want an RTT near 2 s and a loss near 1", v)
	}
}

// A reply that was asked for before the uplink was called dead shows that it never was.
func TestJudgeWasSlow(t *testing.T) {
	j, now := judged()
	n := begin(j, now)
	now = silence(j, now+100, 6)
	wantVerdict(t, j, true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")
	begin(j, now)
	j.Reply(at(now+10), n, 0, ms(900))
	wantVerdict(t, j, true, true, "")
}

// One late reply may end several open rounds, but is one good sign only.
func TestJudgeOneReplyIsOneGoodRound(t *testing.T) {
	j, now := judged()
	now = silence(j, now, 6)
	n := begin(j, now)
	begin(j, now+700)
	j.Reply(at(now+750), n, 0, ms(750))
	wantVerdict(t, j, true, false, "answers again (1 of 2 rounds)")
	if _, open := j.Deadline(); open {
		t.Error("a round is still open")
	}
}

// Faults 58 and 59: after a pause the open rounds count for nothing, and the next ones get more time.
func TestFault59_Pause(t *testing.T) {
	j, now := judged()
	begin(j, now)
	j.Expire(at(now + 100))
	begin(j, now+100)
	begin(j, now+200)
	if j.Expire(at(now + 60_000)) {
		t.Error("a pause decided a round")
	}
	wantVerdict(t, j, true, true, "")
	if v := j.Verdict(); v.Loss != 0 {
		t.Errorf("loss %v: void rounds count for nothing", v.Loss)
	}
	now += 60_000
	begin(j, now)
	if over, _ := j.Deadline(); over.Sub(at(now)) != 2*shortestWait {
		t.Errorf("the next round has %v", over.Sub(at(now)))
	}
	silence(j, now, 3)
	wantVerdict(t, j, true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")
}

// Rounds that end in one late wake-up were not watched one after the other.
func TestJudgeLateWakeCountsOnce(t *testing.T) {
	j, now := judged()
	begin(j, now)
	j.Expire(at(now + 100))
	begin(j, now+100)
	begin(j, now+150)
	j.Expire(at(now + 270))
	wantVerdict(t, j, true, true, "")
}

// What comes in for others proves that an uplink lives, for a while.
func TestJudgeTrafficReturns(t *testing.T) {
	load := Load{Returns: true}
	j := NewJudge(twoTargets(), func() Load { return load })
	j.Reply(at(10), begin(j, 0), 0, ms(10))
	now := 1000
	for now < 3500 {
		now = silence(j, now, 1)
	}
	wantVerdict(t, j, true, true, "")
	silence(j, now+700, 1)
	silence(j, now+1400, 1)
	wantVerdict(t, j, true, false, "no reply from 1.1.1.1, 8.8.8.8 (2 rounds)")
}

func TestJudgeLossIsOfTheBestTarget(t *testing.T) {
	j := NewJudge(twoTargets(), nil)
	for i := range 100 { // the first target is dead, the second answers four times of five
		n := begin(j, 1000*i)
		if i%5 != 0 {
			j.Reply(at(1000*i+30), n, 1, ms(30))
		}
		j.Expire(at(1000*i + 150))
	}
	v := j.Verdict()
	if math.Abs(v.Loss-0.2) > 0.04 || v.RTT != ms(30) || !v.Usable {
		t.Errorf("got %+v, want loss 0.2 and RTT 30 ms", v)
	}
}

func TestJudgeForgetsOldRounds(t *testing.T) {
	j := NewJudge(twoTargets(), nil)
	n := begin(j, 0)
	silence(j, 1000, window)
	if j.Fail(at(90_000), n, 0, errors.New("late")) {
		t.Error("a forgotten round was decided")
	}
	j.Reply(at(90_000), n, 0, ms(90_000))
	if v := j.Verdict(); v.RTT != 0 {
		t.Errorf("a forgotten round was measured: %v", v.RTT)
	}
	for i := range 3 * window { // never expired
		begin(j, 100_000+i)
	}
	if first, ok := j.Deadline(); !ok || first.Before(at(100_000+2*window)) {
		t.Errorf("the oldest open round ends at %v", first.Sub(epoch))
	}
}
