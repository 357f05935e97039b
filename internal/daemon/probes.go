package daemon

import (
	"context"
	"net/netip"
	"sync"

	"tapgw/probe"
	"tapgw/probe/probers"
	"tapgw/uplinks"
)

// prober keeps one probe runner per uplink that could carry packets, and restarts it when what it is bound to changes.
type prober struct {
	plan    probe.Plan
	report  func(id uint8, link probe.Link, v probe.Verdict) // may be called from any goroutine
	running map[uint8]*probing
}

// probing is one uplink being probed.
type probing struct {
	link   probe.Link
	runner *probe.Runner
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func newProber(plan probe.Plan, report func(uint8, probe.Link, probe.Verdict)) *prober {
	return &prober{plan: plan, report: report, running: make(map[uint8]*probing)}
}

// follow makes the set of runners that of the uplinks that can be probed; kick asks the others again at once.
func (p *prober) follow(ctx context.Context, s *uplinks.Snapshot, kick bool) {
	wanted := make(map[uint8]probe.Link)
	for _, u := range s.Uplinks {
		if u.State != uplinks.Disabled && u.Index != 0 && len(u.Addresses) > 0 {
			wanted[u.ID] = probeLink(u)
		}
	}
	for id, r := range p.running {
		if link, ok := wanted[id]; !ok || link != r.link {
			p.stop(id)
		} else if kick {
			r.runner.Kick()
		}
	}
	for id, link := range wanted {
		if p.running[id] == nil {
			p.start(ctx, id, link)
		}
	}
}

func (p *prober) start(ctx context.Context, id uint8, link probe.Link) {
	if len(p.plan.Targets) == 0 {
		return
	}
	set := new(probers.Set)
	runner, err := probe.NewRunner(p.plan, set)
	if err != nil {
		return // the configuration was validated by the same rules
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &probing{link: link, runner: runner, cancel: cancel}
	r.done.Go(func() {
		runner.Run(ctx, link, func(v probe.Verdict) { p.report(id, link, v) })
		_ = set.Close()
	})
	p.running[id] = r
}

func (p *prober) stop(id uint8) {
	r := p.running[id]
	r.cancel()
	r.done.Wait()
	delete(p.running, id)
}

// probes reports whether the uplink is being probed as that link.
func (p *prober) probes(id uint8, link probe.Link) bool {
	r := p.running[id]
	return r != nil && r.link == link
}

// replan stops all runners, so that the next follow starts them with another plan.
func (p *prober) replan(plan probe.Plan) {
	p.close()
	p.plan = plan
}

func (p *prober) close() {
	for id := range p.running {
		p.stop(id)
	}
}

func probeLink(u *uplinks.Uplink) probe.Link {
	l := probe.Link{Name: u.Interface, Index: u.Index, Source: u.Addresses[0], HeaderLess: u.HeaderLess}
	if u.Gateway.IsValid() {
		l.Gateway = netip.AddrFrom4(u.Gateway.As4())
	}
	return l
}

// healthOf is a prober's verdict in the words of package uplinks.
func healthOf(v probe.Verdict) uplinks.Health {
	return uplinks.Health{Known: v.Known, Usable: v.Usable, RTT: v.RTT, Loss: v.Loss, Reason: v.Reason}
}
