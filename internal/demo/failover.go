package demo

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// failover keeps short sessions coming while the first provider goes silent and returns.
func (p *player) failover(ctx context.Context) error {
	v := newVisits(p.stage)
	enough := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { v.run(ctx, enough) })
	switched, err := p.loseFirst(ctx, v)
	if err == nil {
		err = p.regainFirst(ctx, v)
	}
	close(enough)
	running.Wait()
	p.judge(v.all(), switched)
	return err
}

// loseFirst cuts the first provider and returns when new sessions began to avoid it, the zero time if they never did.
func (p *player) loseFirst(ctx context.Context, v *visits) (switched time.Time, err error) {
	p.screen.step(fmt.Sprintf("A new session every %d ms; %s goes silent, though its link stays up", visitEvery.Milliseconds(), titles[first]), time.Now())
	p.show(ctx, quiet, v.rows(false), nil)
	if err := p.cut(); err != nil {
		return switched, err
	}
	at := time.Now()
	p.switched = never
	if p.show(ctx, switchWait, v.rows(true), func() bool { switched = p.avoided(v, at); return !switched.IsZero() }) {
		p.switched = switched.Sub(at)
	}
	p.show(ctx, lookOn, v.rows(true), nil)
	if ctx.Err() == nil {
		p.screen.result(fmt.Sprintf("new sessions by %s after %s", titles[second], span(p.switched)))
	}
	return switched, context.Cause(ctx)
}

// avoided returns the beginning of the first session by the other uplink after the gateway gave the first one up.
func (p *player) avoided(v *visits, cut time.Time) time.Time {
	gone, _ := p.gateway.states.of(uplinkNames[first])
	if gone.usable || gone.since.Before(cut) {
		return time.Time{}
	}
	began, _ := firstBy(v.all(), second, gone.since)
	return began
}

// regainFirst mends the first provider and waits until new sessions use it.
func (p *player) regainFirst(ctx context.Context, v *visits) error {
	p.screen.step(titles[first]+" returns", time.Now())
	if err := p.mend(); err != nil {
		return err
	}
	at := time.Now()
	p.returned = never
	p.show(ctx, returnWait, v.rows(false), func() bool {
		began, found := firstBy(v.all(), first, at)
		if found {
			p.returned = began.Sub(at)
		}
		return found
	})
	p.show(ctx, quiet, v.rows(false), nil)
	if ctx.Err() == nil {
		p.screen.result(fmt.Sprintf("new sessions by %s after %s", titles[first], span(p.returned)))
	}
	return context.Cause(ctx)
}

// judge counts what failed before and after the switch.
func (p *player) judge(list []visit, switched time.Time) {
	if switched.IsZero() {
		_, p.failedBefore = tally(list, time.Time{}, time.Time{})
		return
	}
	_, p.failedBefore = tally(list, time.Time{}, switched)
	good, bad := tally(list, switched, time.Time{})
	p.failedAfter, p.after = bad, bad+good[first]+good[second]
}
