package probe

import (
	"context"
	"math/bits"
	"sync"
	"time"
)

// Suspect starts at most maxKicks rounds per Interval, so that a storm of events is not a storm of probes, and not sooner after
// the latest than that part of an Interval or of a kickSpan: an uplink that is seldom asked is nevertheless asked at once.
const (
	maxKicks = 4
	kickSpan = 2 * time.Second
)

// Runner probes one uplink in rounds.
type Runner struct {
	plan   Plan
	prober Prober
	load   func() Load
	timer  func() Timer
	kick   chan struct{}
}

// Timer wakes a Runner up.
type Timer interface {
	At(time.Time) // replaces the instant before, and may be in the past
	Fired() <-chan time.Time
	Stop()
}

// goTimer is one of the Go runtime's.
type goTimer struct{ *time.Timer }

func (t goTimer) At(at time.Time)         { t.Reset(time.Until(at)) }
func (t goTimer) Fired() <-chan time.Time { return t.C }
func (t goTimer) Stop()                   { t.Timer.Stop() }

// NewRunner returns a Runner that does nothing until Run. It refuses an invalid plan. It asks load, unless that is nil, what the
// uplink carries, and uses a timer of Go's where timer is or returns nil.
func NewRunner(plan Plan, prober Prober, load func() Load, timer func() Timer) (*Runner, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	return &Runner{plan: plan, prober: prober, load: load, timer: timer, kick: make(chan struct{}, 1)}, nil
}

func (r *Runner) newTimer() Timer {
	if r.timer != nil {
		if t := r.timer(); t != nil {
			return t
		}
	}
	return goTimer{time.NewTimer(0)}
}

// Suspect makes Run ask at once: after a link event, when the machine woke up, or when traffic remains unanswered. An uplink that
// answers stays as it is; a dead one is called so Fall × Haste and twice the usual time of an answer later. It never blocks.
func (r *Runner) Suspect() {
	select {
	case r.kick <- struct{}{}:
	default: // one is waiting already
	}
}

// Run probes link until ctx ends and then returns when all its goroutines have. It calls report, never concurrently, once
// per decided round; report must not wait for whoever waits for Run. For a changed Link call it anew: nothing that was true of the old one need be true of the new. Only
// one Run may be active at a time.
func (r *Runner) Run(ctx context.Context, link Link, report func(Verdict)) {
	ctx, cancel := context.WithCancel(ctx)
	s := &series{Runner: r, link: link, judge: NewJudge(r.plan, r.load), answers: make(chan answer)}
	defer s.probes.Wait()
	defer cancel()

	timer := r.newTimer()
	defer timer.Stop()
	timer.At(time.Now())
	for {
		decided := false
		select {
		case <-ctx.Done():
			return
		case a := <-s.answers:
			decided = s.take(a)
		case <-r.kick:
			s.suspect(time.Now())
		case <-timer.Fired():
		}
		decided = s.drain() || decided
		now := time.Now()
		decided = s.judge.Expire(now) || decided
		s.hurry()
		if !now.Before(s.next) {
			s.begin(ctx, now)
		}
		if decided {
			report(s.judge.Verdict())
		}
		timer.At(s.wake())
	}
}

// series is the state of one Run.
type series struct {
	*Runner
	link    Link
	judge   *Judge
	last    time.Time           // when the latest round began
	next    time.Time           // when the next one does
	kicked  [maxKicks]time.Time // when the latest rounds began that were brought forward, the oldest first
	answers chan answer
	probes  sync.WaitGroup
}

// answer is how one probe ended; one that ends in silence sends none.
type answer struct {
	round  uint64
	target int
	rtt    time.Duration
	err    error
}

// drain takes the answers that wait already, before anybody is judged for being late.
func (s *series) drain() (decided bool) {
	for {
		select {
		case a := <-s.answers:
			decided = s.take(a) || decided
		default:
			return decided
		}
	}
}

func (s *series) take(a answer) bool {
	if a.err != nil {
		return s.judge.Fail(time.Now(), a.round, a.target, a.err)
	}
	return s.judge.Reply(time.Now(), a.round, a.target, a.rtt)
}

// begin starts a round. The next one is planned from now, not from when this one was due: what was missed is not caught up.
func (s *series) begin(ctx context.Context, now time.Time) {
	n, targets := s.judge.Begin(now)
	s.last, s.next = now, next(now, s.judge.Pause())
	for ; targets != 0; targets &= targets - 1 {
		target := bits.TrailingZeros16(targets)
		s.probes.Go(func() { s.ask(ctx, n, target) })
	}
}

func (s *series) ask(ctx context.Context, n uint64, target int) {
	waiting, cancel := context.WithTimeout(ctx, patience*s.plan.Timeout)
	defer cancel()
	rtt, err := s.prober.Probe(waiting, s.link, s.plan.Targets[target])
	if err != nil && waiting.Err() != nil {
		return
	}
	select {
	case s.answers <- answer{n, target, rtt, err}:
	case <-ctx.Done():
	}
}

// hurry brings the next round forward where there is a suspicion.
func (s *series) hurry() {
	if soonest := s.last.Add(s.judge.Pause()); soonest.Before(s.next) {
		s.next = soonest
	}
}

// suspect brings the next round forward.
func (s *series) suspect(now time.Time) {
	s.judge.Suspect(now)
	soonest := s.last.Add(min(s.plan.Interval, kickSpan) / maxKicks)
	for _, other := range []time.Time{now, s.kicked[0].Add(s.plan.Interval)} {
		if other.After(soonest) {
			soonest = other
		}
	}
	if soonest.Before(s.next) {
		s.next = soonest
		copy(s.kicked[:], s.kicked[1:])
		s.kicked[maxKicks-1] = soonest
	}
}

// wake is when Run has something to do without being told.
func (s *series) wake() time.Time {
	if at, ok := s.judge.Deadline(); ok && at.Before(s.next) {
		return at
	}
	return s.next
}

// beginning is an instant of every step.
var beginning = time.Now()

// Since is how long ago the latest instant was that all who do something so often have in common.
func Since(now time.Time, every time.Duration) time.Duration {
	since := now.Sub(beginning) % every
	if since < 0 {
		since += every
	}
	return since
}

// next is d later, or up to a tenth sooner: after some rounds uplinks are asked at the same instants, so that an idle machine wakes up
// once for all of them; never later, or detection would take longer.
func next(now time.Time, d time.Duration) time.Time {
	return now.Add(d - min(Since(now, d), d/10))
}
