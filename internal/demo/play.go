package demo

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// How long the parts take.
const (
	warmUp     = 2 * time.Second  // of downloads, before anything is counted
	measured   = 5 * time.Second  // of downloads
	quiet      = 2 * time.Second  // of short sessions before the cut, and after everything
	lookOn     = 3 * time.Second  // of short sessions after the switch
	switchWait = 8 * time.Second  // for the switch at most
	returnWait = 12 * time.Second // for the return at most
	redraw     = 100 * time.Millisecond
	window     = time.Second // over which the bars show a mean
)

// player is the demo while it runs.
type player struct {
	*stage
	screen *screen
	figures
}

// play runs all parts, one after the other.
func play(ctx context.Context, s *stage, screen *screen) (*figures, error) {
	ctx, stop := s.gateway.guard(ctx)
	defer stop()
	if err := s.awaitUsable(ctx); err != nil {
		return nil, err
	}
	p := &player{stage: s, screen: screen}
	for _, part := range []func(context.Context) error{p.download, p.failover} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return &p.figures, nil
}

// download keeps 16 downloads going, first with the better uplink alone and then with both.
func (p *player) download(ctx context.Context) (err error) {
	if err := p.use(ctx, second, false); err != nil {
		return err
	}
	d := newDownloads(p.stage)
	working, enough := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { d.run(working) })
	defer running.Wait()
	defer enough()
	p.screen.step(fmt.Sprintf("%d downloads at once, %s alone", parallel, titles[first]), time.Now())
	p.alone, _, err = p.measure(ctx, d)
	if err != nil {
		return err
	}
	p.screen.result(rate(p.alone))
	if err := p.use(ctx, second, true); err != nil {
		return err
	}
	p.screen.step(titles[second]+" is switched on", time.Now())
	p.together, p.sessions, err = p.measure(ctx, d)
	if err != nil {
		return err
	}
	p.screen.result(fmt.Sprintf("%s, %.2f times the best ISP alone", rate(p.together), p.gain()))
	p.refused = int(d.failed.Load())
	return nil
}

// use switches an uplink on or off, as `tapgw uplink enable|disable` does, and waits until that is in force.
func (p *player) use(ctx context.Context, uplink int, on bool) error {
	if err := p.gateway.client.SetUplink(ctx, uplinkNames[uplink], on); err != nil {
		return err
	}
	return p.gateway.states.await(ctx, uplinkNames[uplink], on)
}

// measure returns the mean rate of all downloads and how many of them began by each uplink, once they have settled.
func (p *player) measure(ctx context.Context, d *downloads) (bps float64, began [count]int, err error) {
	var m meter
	draw := func(time.Time) []row { return m.rows(d.read()) }
	p.show(ctx, warmUp, draw, nil)
	before := d.read()
	p.show(ctx, measured, draw, nil)
	after := d.read()
	seconds := after.at.Sub(before.at).Seconds()
	for i := range began {
		bps += float64(after.bytes[i]-before.bytes[i]) * 8 / seconds
		began[i] = int(after.sessions[i] - before.sessions[i])
	}
	return bps, began, context.Cause(ctx)
}

// show redraws until the time is over or done holds, and reports whether it did.
func (p *player) show(ctx context.Context, limit time.Duration, draw func(now time.Time) []row, done func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for done == nil || !done() {
		select {
		case <-ctx.Done():
			return false
		case now := <-tick.C:
			p.screen.rows(draw(now), now)
		}
	}
	return true
}
