package probe

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// patience is how many Timeouts a probe is waited for: a late reply still shows that the path is alive.
	patience = 3
	// kicks start at most this many rounds per Interval, so that a storm of link events is not a storm of probes.
	maxKicks = 4
)

// Runner probes one uplink in rounds.
type Runner struct {
	plan   Plan
	prober Prober
	kick   chan struct{}
}

// NewRunner returns a Runner that does nothing until Run. It refuses an invalid plan.
func NewRunner(plan Plan, prober Prober) (*Runner, error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	return &Runner{plan: plan, prober: prober, kick: make(chan struct{}, 1)}, nil
}

// Kick makes Run begin a round at once, for example after a link event or when the machine woke up. It never blocks.
func (r *Runner) Kick() {
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
	s := &series{Runner: r, link: link, judge: NewJudge(r.plan), answers: make(chan answer)}
	defer s.probes.Wait()
	defer cancel()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		decided := false
		select {
		case <-ctx.Done():
			return
		case a := <-s.answers:
			decided = s.take(a)
		case <-r.kick:
			s.hurry(time.Now())
		case <-timer.C:
		}
		now := time.Now()
		decided = s.judge.Expire(now) || decided
		if !now.Before(s.next) {
			s.begin(ctx, now)
		}
		if decided {
			report(s.judge.Verdict(now))
		}
		timer.Reset(s.wake().Sub(now))
	}
}

// series is the state of one Run.
type series struct {
	*Runner
	link    Link
	judge   *Judge
	last    time.Time // when the latest round began
	next    time.Time // when the next one does
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

func (s *series) take(a answer) bool {
	if a.err != nil {
		return s.judge.Fail(a.round, a.target, a.err)
	}
	return s.judge.Reply(time.Now(), a.round, a.target, a.rtt)
}

// begin starts a round. The next one is planned from now, not from when this one was due: what was missed is not caught up.
func (s *series) begin(ctx context.Context, now time.Time) {
	n := s.judge.Begin(now)
	s.last, s.next = now, now.Add(jitter(s.plan.Interval))
	for i := range s.plan.Targets {
		s.probes.Go(func() { s.ask(ctx, n, i) })
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

// hurry brings the next round forward.
func (s *series) hurry(now time.Time) {
	soonest := s.last.Add(s.plan.Interval / maxKicks)
	if now.After(soonest) {
		soonest = now
	}
	if soonest.Before(s.next) {
		s.next = soonest
	}
}

// wake is when Run has something to do without being told.
func (s *series) wake() time.Time {
	if at, ok := s.judge.Deadline(); ok && at.Before(s.next) {
		return at
	}
	return s.next
}

// jitter shortens d by up to a tenth, so that uplinks do not probe in step; never longer, or detection would take longer.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }
