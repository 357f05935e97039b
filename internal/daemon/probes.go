package daemon

import (
	"context"
	"sync"

	"tapgw/probe"
	"tapgw/probe/probers"
	"tapgw/uplinks"
)

// side names a family of an uplink.
type side struct {
	uplink uint8
	family uplinks.Family
}

// prober keeps one probe runner per side of an uplink that could carry packets, and restarts it when what it is bound to
// changes.
type prober struct {
	plan    probe.Plan                                     // of both families
	report  func(s side, link probe.Link, v probe.Verdict) // may be called from any goroutine
	load    func(uplink uint8) probe.Load                  // the same
	running map[side]*probing
}

// probing is one side being probed.
type probing struct {
	sparing bool
	link    probe.Link
	runner  *probe.Runner
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func newProber(plan probe.Plan, load func(uint8) probe.Load, report func(side, probe.Link, probe.Verdict)) *prober {
	return &prober{plan: plan, load: load, report: report, running: make(map[side]*probing)}
}

// follow makes the set of runners that of the sides that can be probed; kick asks the others again at once.
func (p *prober) follow(ctx context.Context, s *uplinks.Snapshot, kick bool) {
	wanted := make(map[side]probe.Link)
	sparing := make(map[uint8]bool)
	for _, u := range s.Uplinks {
		sparing[u.ID] = u.Metered
		for _, f := range uplinks.Families {
			if on := u.On(f); on.State != uplinks.Disabled && u.Index != 0 && !on.Cut && len(on.Addresses) > 0 {
				wanted[side{u.ID, f}] = probeLink(u, on)
			}
		}
	}
	for at, r := range p.running {
		if link, ok := wanted[at]; !ok || link != r.link || sparing[at.uplink] != r.sparing {
			p.stop(at)
		} else if kick {
			r.runner.Suspect()
		}
	}
	for at, link := range wanted {
		if p.running[at] == nil {
			p.start(ctx, at, link, sparing[at.uplink])
		}
	}
}

func (p *prober) start(ctx context.Context, at side, link probe.Link, sparing bool) {
	plan := p.plan.Of(at.family == uplinks.IPv6)
	if len(plan.Targets) == 0 {
		return
	}
	if sparing {
		plan = plan.Sparing()
	}
	set := new(probers.Set)
	runner, err := probe.NewRunner(plan, set, func() probe.Load { return p.load(at.uplink) }, newAlarm)
	if err != nil {
		return // the configuration was validated by the same rules
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &probing{sparing: sparing, link: link, runner: runner, cancel: cancel}
	r.done.Go(func() {
		runner.Run(ctx, link, func(v probe.Verdict) { p.report(at, link, v) })
		_ = set.Close()
	})
	p.running[at] = r
}

func (p *prober) stop(at side) {
	r := p.running[at]
	r.cancel()
	r.done.Wait()
	delete(p.running, at)
}

// kick asks those of a family anew at once that ok wants.
func (p *prober) kick(f uplinks.Family, ok func(uplink uint8) bool) {
	for at, r := range p.running {
		if at.family == f && ok(at.uplink) {
			r.runner.Suspect()
		}
	}
}

// probes reports whether a side is being probed as that link.
func (p *prober) probes(at side, link probe.Link) bool {
	r := p.running[at]
	return r != nil && r.link == link
}

// replan stops all runners, so that the next follow starts them with another plan.
func (p *prober) replan(plan probe.Plan) {
	p.close()
	p.plan = plan
}

func (p *prober) close() {
	for at := range p.running {
		p.stop(at)
	}
}

// probeLink is a side of an uplink as probes see it.
func probeLink(u *uplinks.Uplink, on *uplinks.Side) probe.Link {
	return probe.Link{Name: u.Interface, Index: u.Index, Source: on.Addresses[0], Gateway: on.Gateway, HeaderLess: u.HeaderLess}
}

// healthOf is a prober's verdict in the words of package uplinks.
func healthOf(v probe.Verdict) uplinks.Health {
	return uplinks.Health{
		Known: v.Known, Usable: v.Usable, Degraded: v.Degraded, Portal: v.Portal, RTT: v.RTT, Loss: v.Loss, Reason: v.Reason,
	}
}
