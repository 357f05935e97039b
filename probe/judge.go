package probe

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

const (
	// window is how many rounds are remembered, so that late replies to them count.
	window = 64
	// Haste is the pause between the rounds of a suspicion: long enough for the loss of one not to be that of the next.
	Haste = 100 * time.Millisecond
	// patience is how many Timeouts a probe is waited for: a late reply still shows that the path is alive.
	patience = 3
	// doubt is how likely silence may be bad luck, with the loss seen before, for an uplink to be called unusable.
	doubt = 1e-6
	// maxFall bounds the failed rounds that a bad uplink is granted for that.
	maxFall = 20
)

// Judge turns replies into verdicts. It has no clock: times come in as arguments and must not go backwards. It is not safe
// for concurrent use.
//
// While all is well a round asks no more targets than must answer, and has failed when they are late. That is a suspicion
// only: then all targets are asked in quick rounds, until they answer or Fall rounds have failed.
//
// A round is good when, while it was open, Quorum targets were heard, whichever round they answered: a link with two
// seconds of queue is slow, not dead, and a reply to a later round excuses an earlier loss. It has failed when its time is
// over, or when so many targets reported errors that the quorum is out of reach. A gateway alone makes no round good.
type Judge struct {
	plan    Plan
	load    func() Load
	targets []memory
	rounds  [window]round
	begun   uint64   // rounds so far; the next one's number
	open    []uint64 // numbers of undecided rounds, oldest first
	tallied uint64   // rounds before this one were counted by the targets they asked

	good, bad     int // consecutive rounds that decided; of the bad ones those that asked everybody
	lastGood      time.Time
	known, usable bool
	wasUsable     bool
	fell, rose    uint64 // the first round since it is not usable, or usable
	reason        string

	suspected time.Time // zero while there is no suspicion
	hurried   int       // rounds that were begun since
	needed    int       // that must fail
	slack     int       // how often the time of a round was doubled, because the process ran too late to judge one
	calm      uint16    // bit per target: asked while all is well
	everybody uint16    // asked else
	censusAt  time.Time // when they are due
	contentAt time.Time // when those of content are due

	leak, clean float64 // how sure it is that loss is above its threshold, and below half of it
	lossy       bool
	tardy       int // answers in a row, negative when fast, that took longer than Latency
	slow        bool
}

type round struct {
	number   uint64
	start    time.Time
	wait     time.Duration
	asked    uint16 // bit per target
	answered uint16 // of these, replied within Timeout
	all      bool   // asked everybody
	void     bool   // counts for nothing
	errs     []error
}

// Load is what an uplink carries at the moment.
type Load struct {
	Returns bool // packets of others' sessions come in: it is not dead, however late the probes are
	Full    bool // it is filled by what it carries, so that loss and delay are our own
}

// NewJudge returns a judge that has seen nothing. The plan must be valid; load, which may be nil, is asked for the uplink's.
func NewJudge(plan Plan, load func() Load) *Judge {
	if load == nil {
		load = func() Load { return Load{} }
	}
	return &Judge{
		plan: plan, load: load, targets: make([]memory, len(plan.Targets)), everybody: plan.everybody(), reason: "not probed yet",
	}
}

// Begin opens a round and returns its number and the targets to ask, a bit for each. A round that is still open after a whole
// window of later ones is void.
func (j *Judge) Begin(now time.Time) (number uint64, ask uint16) {
	j.tally(now)
	if !j.known && j.suspected.IsZero() {
		j.look(now) // as long as nothing is known, everybody is asked
	}
	n := j.begun
	j.begun++
	if len(j.open) > 0 && n-j.open[0] >= window {
		j.open = j.open[1:]
	}
	r := &j.rounds[n%window]
	*r = round{number: n, start: now, all: !j.usable || !j.suspected.IsZero(), void: j.load().Full}
	r.asked = j.choose(now, r.all)
	r.wait = j.wait(r)
	j.open = append(j.open, n)
	if !j.suspected.IsZero() {
		j.hurried++
	}
	for set := r.asked; set != 0; set &= set - 1 {
		j.targets[bits.TrailingZeros16(set)].ask(now)
	}
	return n, r.asked
}

// Pause is how long after the beginning of the latest round the next one is to begin.
func (j *Judge) Pause() time.Duration {
	if !j.suspected.IsZero() && j.hurried < j.needed {
		return min(Haste, j.plan.Interval)
	}
	return j.plan.Interval
}

// Suspect makes the next round one that asks everybody, where the plan has that done at all, and not twice in an Interval.
func (j *Judge) Suspect(now time.Time) {
	if j.plan.Checks > 0 && j.censusAt.Sub(now) < j.plan.Checks-j.plan.Interval {
		j.censusAt = now
	}
}

// Reply records that a target answered the probe of a round, however late, and reports whether that decided a round.
func (j *Judge) Reply(now time.Time, number uint64, target int, rtt time.Duration) bool {
	j.targets[target].hear(now)
	if r := j.round(number); r != nil {
		if rtt <= j.plan.Timeout {
			r.answered |= 1 << target
		}
		j.targets[target].measure(rtt)
		j.compare(target, r)
		if j.known && !j.usable && number < j.fell {
			j.good = max(j.good, j.plan.Rise-1) // it was slow, not dead
		}
	}
	return j.decide(now)
}

// decide ends the open rounds that are good, and reports whether there are any.
func (j *Judge) decide(now time.Time) bool {
	if !j.settle(func(r *round) bool { return j.alive(now, r) }) {
		return false
	}
	j.lastGood = now
	j.countGood(now) // once, however many rounds one reply has ended, or Rise would mean nothing on slow links
	return true
}

// Fail records that the probe of a round to a target cannot succeed, and reports whether that decided the round. A probe
// that is merely unanswered is not reported: Expire sees to it.
func (j *Judge) Fail(now time.Time, number uint64, target int, err error) bool {
	r := j.round(number)
	if r == nil {
		return false
	}
	j.targets[target].fail(err)
	j.confirm(now, target)
	if j.decide(now) {
		return true // nothing else was waited for
	}
	if r.errs == nil {
		r.errs = make([]error, len(j.plan.Targets))
	}
	r.errs[target] = err
	left := 0
	for i, e := range r.errs {
		if e == nil && r.asked&(1<<i) != 0 {
			left++
		}
	}
	if left >= j.plan.Quorum {
		return false
	}
	failed := j.settle(func(open *round) bool { return open == r })
	return failed && j.countBad(now, r)
}

// Deadline is when the next open round is over; ok is false when none is open.
func (j *Judge) Deadline() (at time.Time, ok bool) {
	for _, n := range j.open {
		if over := j.round(n).over(); !ok || over.Before(at) {
			at, ok = over, true
		}
	}
	return at, ok
}

// Expire closes the rounds whose time has passed and reports whether one was decided.
//
// When it is called as much too late as the round had to wait, the process did not run (suspended, paused, starved), and
// replies may lie unread: all open rounds are void then, so that a busy machine does not lose all its uplinks at once, and the
// next ones get twice the time.
func (j *Judge) Expire(now time.Time) bool {
	j.tally(now)
	at, ok := j.Deadline()
	if !ok || now.Before(at) {
		return false
	}
	if j.late(now) {
		j.settle(func(r *round) bool { r.void = true; return true })
		j.slack++
		j.hurried = min(j.hurried, j.bad)
		return false
	}
	if j.decide(now) {
		return true
	}
	var failed *round
	j.settle(func(r *round) bool {
		over := !now.Before(r.over())
		if over && (failed == nil || !failed.all) {
			failed = r
		}
		return over
	})
	return j.countBad(now, failed) // once, as in Reply: rounds that end together were not watched one after the other
}

// late reports whether now is too late to judge a round.
func (j *Judge) late(now time.Time) bool {
	for _, n := range j.open {
		if r := j.round(n); now.Sub(r.over()) > r.wait {
			return true
		}
	}
	return false
}

// Verdict is the judgement as of the latest round.
func (j *Judge) Verdict() Verdict {
	v := Verdict{Known: j.known, Usable: j.usable, RTT: j.rtt(), Loss: j.loss(), Reason: j.reason, Good: j.lastGood}
	if v.Usable {
		v.Portal, v.Reason = j.portal(), j.flaw()
		v.Degraded = v.Reason != ""
	}
	return v
}

func (r *round) over() time.Time { return r.start.Add(r.wait) }

// round returns a round of the window, or nil when it is forgotten.
func (j *Judge) round(number uint64) *round {
	if r := &j.rounds[number%window]; number < j.begun && r.number == number {
		return r
	}
	return nil
}

// settle removes the open rounds for which done is true, and reports whether there were any.
func (j *Judge) settle(done func(*round) bool) bool {
	kept := j.open[:0]
	for _, n := range j.open {
		if r := j.round(n); r != nil && !done(r) {
			kept = append(kept, n)
		}
	}
	settled := len(kept) < len(j.open)
	j.open = kept
	return settled
}

// alive reports whether enough targets were heard since the round began, one of them behind the gateway where any is.
// Before an uplink is called usable it is waited for what its content is.
func (j *Judge) alive(now time.Time, r *round) bool {
	if !j.usable && j.awaited(now) {
		return false
	}
	n, far, anyFar := 0, false, false
	for i, t := range j.plan.Targets {
		heard := !j.targets[i].heard.IsZero() && !j.targets[i].heard.Before(r.start)
		if heard {
			n++
		}
		far, anyFar = far || heard && !t.Kind.gateway(), anyFar || !t.Kind.gateway()
	}
	return n >= j.plan.Quorum && (far || !anyFar)
}

func (j *Judge) countGood(now time.Time) {
	j.good, j.bad = j.good+1, 0
	switch {
	case j.usable:
		j.trust()
	case !j.wasUsable || j.good >= j.plan.Rise: // the very first good round suffices
		j.rise()
	default:
		j.contentAt = now
		j.reason = fmt.Sprintf("answers again (%d of %d rounds)", j.good, j.plan.Rise)
	}
}

// rise makes the uplink usable. What was lost before says nothing of it.
func (j *Judge) rise() {
	j.known, j.usable, j.wasUsable, j.reason = true, true, true, ""
	j.rose = j.begun
	for i := range j.targets {
		j.targets[i].lost, j.targets[i].counted, j.targets[i].missed = 0, 0, 0
	}
	j.leak, j.clean, j.lossy, j.tardy, j.slow = 0, 0, false, 0, false
	j.trust()
}

// look begins a suspicion.
func (j *Judge) look(now time.Time) {
	j.suspected, j.hurried, j.bad, j.needed = now, 0, 0, j.enough()
}

// trust ends a suspicion.
func (j *Judge) trust() { j.suspected, j.hurried, j.slack = time.Time{}, 0, 0 }

// countBad takes a failed round, and reports whether that says anything of the uplink.
func (j *Judge) countBad(now time.Time, r *round) bool {
	if !r.all {
		if j.usable && j.suspected.IsZero() {
			j.look(now)
		}
		return false
	}
	j.good, j.bad = 0, min(j.bad+1, maxFall)
	if j.bad < j.needed || j.usable && j.load().Returns && now.Sub(j.suspected) < patience*j.plan.Timeout {
		return true
	}
	if j.usable || !j.known {
		j.fell = j.begun
	}
	j.known, j.usable, j.reason = true, false, j.why(r)
	j.trust()
	return true
}

// enough is how many failed rounds in a row make an uplink unusable: so many more than Fall that the loss it had before does
// not explain them.
func (j *Judge) enough() int {
	loss := j.loss()
	if loss <= 0 {
		return j.plan.Fall
	}
	far := 0
	for i := range j.targets {
		if m := &j.targets[i]; m.rtt > 0 && m.missed < deaf && !j.plan.Targets[i].Kind.gateway() {
			far++
		}
	}
	n := math.Log(doubt) / math.Log(min(loss, 0.9)) / float64(max(far, 1))
	return max(j.plan.Fall, min(int(math.Ceil(n)), maxFall))
}

// why names the targets that a failed round did not hear, those that sent errors first.
func (j *Judge) why(r *round) string {
	var clauses, silent []string
	for i, t := range j.plan.Targets {
		switch {
		case r.asked&(1<<i) == 0, !j.targets[i].heard.Before(r.start):
		case r.errs != nil && r.errs[i] != nil:
			clauses = append(clauses, fmt.Sprintf("%s: %v", t.host(), r.errs[i]))
		default:
			silent = append(silent, t.host())
		}
	}
	if len(silent) > 0 {
		clauses = append(clauses, "no reply from "+strings.Join(silent, ", "))
	}
	return fmt.Sprintf("%s (%d rounds)", strings.Join(clauses, "; "), min(j.bad, j.plan.Fall))
}
