package probe

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// window is how many rounds loss is computed from.
const window = 32

// Judge turns replies into verdicts. It has no clock: times come in as arguments and must not go backwards. It is not safe
// for concurrent use.
//
// A round is good when, while it was open, Quorum targets were heard, whichever round they answered: a link with two
// seconds of queue is slow, not dead, and a reply to a later round excuses an earlier loss. It has failed when its Timeout
// passed without, or when so many targets reported errors that the quorum is out of reach.
type Judge struct {
	plan   Plan
	rounds [window]round
	begun  uint64 // rounds so far; the next one's number
	heard  []time.Time

	good, bad     int // consecutive rounds
	known, usable bool
	wasUsable     bool
	rtt           time.Duration
	reason        string
	open          []uint64 // numbers of undecided rounds, oldest first
}

type round struct {
	number   uint64
	start    time.Time
	answered uint16 // bit per target: replied within Timeout
	replied  bool   // a reply was counted in the RTT
	void     bool   // counts for nothing
	errs     []error
}

// NewJudge returns a judge that has seen nothing. The plan must be valid.
func NewJudge(plan Plan) *Judge {
	return &Judge{plan: plan, heard: make([]time.Time, len(plan.Targets)), reason: "not probed yet"}
}

// Begin opens a round and returns its number. A round that is still open after a whole window of later ones is void.
func (j *Judge) Begin(now time.Time) uint64 {
	n := j.begun
	j.begun++
	if len(j.open) > 0 && n-j.open[0] >= window {
		j.open = j.open[1:]
	}
	j.rounds[n%window] = round{number: n, start: now}
	j.open = append(j.open, n)
	return n
}

// Reply records that a target answered the probe of a round, however late, and reports whether that decided a round.
func (j *Judge) Reply(now time.Time, number uint64, target int, rtt time.Duration) bool {
	j.heard[target] = now
	if r := j.round(number); r != nil {
		j.measure(r, target, rtt)
	}
	decided := false
	j.settle(func(r *round) bool {
		alive := j.alive(r)
		decided = decided || alive
		return alive
	})
	if decided {
		j.countGood() // once, however many rounds one reply has ended, or Rise would mean nothing on slow links
	}
	return decided
}

func (j *Judge) measure(r *round, target int, rtt time.Duration) {
	if rtt <= j.plan.Timeout {
		r.answered |= 1 << target
	}
	if r.replied {
		return
	}
	r.replied = true
	if j.rtt == 0 {
		j.rtt = rtt
	}
	j.rtt += (rtt - j.rtt) / 4
}

// Fail records that the probe of a round to a target cannot succeed, and reports whether that decided the round. A probe
// that is merely unanswered is not reported: Expire sees to it.
func (j *Judge) Fail(number uint64, target int, err error) bool {
	r := j.round(number)
	if r == nil {
		return false
	}
	if r.errs == nil {
		r.errs = make([]error, len(j.plan.Targets))
	}
	r.errs[target] = err
	left := 0
	for _, e := range r.errs {
		if e == nil {
			left++
		}
	}
	if left >= j.plan.Quorum {
		return false
	}
	return j.settle(func(open *round) bool {
		if open == r {
			j.countBad(r)
		}
		return open == r
	})
}

// Deadline is when the oldest open round is over; ok is false when none is open.
func (j *Judge) Deadline() (at time.Time, ok bool) {
	if len(j.open) == 0 {
		return time.Time{}, false
	}
	return j.round(j.open[0]).start.Add(j.plan.Timeout), true
}

// Expire closes the rounds whose Timeout has passed and reports whether one was decided.
//
// When it is called more than Timeout too late, the process did not run (suspended, paused, starved), and replies may lie
// unread: all open rounds are void then, so that a busy machine does not lose all its uplinks at once.
func (j *Judge) Expire(now time.Time) bool {
	at, ok := j.Deadline()
	if !ok {
		return false
	}
	if now.Sub(at) > j.plan.Timeout {
		j.settle(func(r *round) bool { r.void = true; return true })
		return false
	}
	var failed *round
	j.settle(func(r *round) bool {
		over := !now.Before(r.start.Add(j.plan.Timeout))
		if over {
			failed = r
		}
		return over
	})
	if failed != nil {
		j.countBad(failed) // once, as in Reply: rounds that end together were not watched one after the other
	}
	return failed != nil
}

// Verdict is the judgement at now.
func (j *Judge) Verdict(now time.Time) Verdict {
	return Verdict{Known: j.known, Usable: j.usable, RTT: j.rtt, Loss: j.loss(now), Reason: j.reason}
}

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

// alive reports whether enough targets were heard since the round began.
func (j *Judge) alive(r *round) bool {
	n := 0
	for _, at := range j.heard {
		if !at.IsZero() && !at.Before(r.start) {
			n++
		}
	}
	return n >= j.plan.Quorum
}

func (j *Judge) countGood() {
	j.good, j.bad = j.good+1, 0
	switch {
	case j.usable || !j.wasUsable || j.good >= j.plan.Rise: // the very first good round suffices
		j.known, j.usable, j.wasUsable, j.reason = true, true, true, ""
	default:
		j.reason = fmt.Sprintf("answers again (%d of %d rounds)", j.good, j.plan.Rise)
	}
}

func (j *Judge) countBad(r *round) {
	j.good, j.bad = 0, min(j.bad+1, j.plan.Fall)
	if j.bad == j.plan.Fall {
		j.known, j.usable, j.reason = true, false, j.why(r)
	}
}

// why names the targets that a failed round did not hear, those that sent errors first.
func (j *Judge) why(r *round) string {
	var clauses, silent []string
	for i, t := range j.plan.Targets {
		switch {
		case !j.heard[i].Before(r.start):
		case r.errs != nil && r.errs[i] != nil:
			clauses = append(clauses, fmt.Sprintf("%s: %v", t.host(), r.errs[i]))
		default:
			silent = append(silent, t.host())
		}
	}
	if len(silent) > 0 {
		clauses = append(clauses, "no reply from "+strings.Join(silent, ", "))
	}
	return fmt.Sprintf("%s (%d rounds)", strings.Join(clauses, "; "), j.bad)
}

// loss is that of the target which answers best: another one may be dead or limit its answers, the path is no better than
// the best.
func (j *Judge) loss(now time.Time) float64 {
	var answers [MaxTargets]int
	over := 0
	for n := j.begun - min(j.begun, window); n < j.begun; n++ {
		r := j.round(n)
		if r.void || now.Before(r.start.Add(j.plan.Timeout)) {
			continue
		}
		over++
		for set := r.answered; set != 0; set &= set - 1 {
			answers[bits.TrailingZeros16(set)]++
		}
	}
	best := 0
	for _, n := range answers {
		best = max(best, n)
	}
	if over == 0 {
		return 0
	}
	return 1 - float64(best)/float64(over)
}
