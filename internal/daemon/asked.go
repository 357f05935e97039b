package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tapgw/api"
	"tapgw/probe"
	"tapgw/probe/probers"
	"tapgw/uplinks"
)

const (
	// maxAsking is how many may ask the targets at the same time.
	maxAsking = 4
	// askLimit is how long they are waited for; silence may last as long as a round of probes waits.
	askLimit    = 10 * time.Second
	askPatience = 2 // times the timeout of a round
)

// Probe answers POST /v1/probe. The usual probes ask at once as well, so that the state follows.
func (b backend) Probe(ctx context.Context, name string) ([]api.Probe, error) {
	asked := slices.Clone(b.snapshot.Load().Uplinks)
	asked = slices.DeleteFunc(asked, func(u *uplinks.Uplink) bool { return name != "" && u.Name != name })
	if name != "" && len(asked) == 0 {
		return nil, b.unknown(name, uplinks.ErrUnknown)
	}
	select {
	case b.asking <- struct{}{}:
		defer func() { <-b.asking }()
	default:
		return nil, fmt.Errorf("%w: %d others ask the targets already", api.ErrBusy, maxAsking)
	}
	if err := b.ask(func() error { b.kickAll(asked); return nil }); err != nil {
		return nil, err
	}
	plan, list := probePlan(b.cfg()), make([]api.Probe, len(asked))
	ctx, cancel := context.WithTimeout(ctx, min(askPatience*plan.Timeout, askLimit))
	defer cancel()
	var all sync.WaitGroup
	for i, u := range asked {
		all.Go(func() { list[i] = api.Probe{Uplink: u.Name, Answers: askTargets(ctx, plan, u)} })
	}
	all.Wait()
	return list, nil
}

// kickAll runs in the control loop.
func (d *Daemon) kickAll(list []*uplinks.Uplink) {
	for _, f := range uplinks.Families {
		d.prober.kick(f, func(id uint8) bool {
			return slices.ContainsFunc(list, func(u *uplinks.Uplink) bool { return u.ID == id })
		})
	}
}

// askTargets asks all at once, of both families as far as the uplink has had them.
func askTargets(ctx context.Context, plan probe.Plan, u *uplinks.Uplink) []api.ProbeAnswer {
	var answers [len(uplinks.Families)][]api.ProbeAnswer
	var all sync.WaitGroup
	for _, f := range uplinks.Families {
		if u.On(f).State != "" {
			all.Go(func() { answers[f] = askFamily(ctx, plan.Of(f == uplinks.IPv6).Targets, u, f) })
		}
	}
	all.Wait()
	return append([]api.ProbeAnswer{}, slices.Concat(answers[:]...)...)
}

func askFamily(ctx context.Context, targets []probe.Target, u *uplinks.Uplink, f uplinks.Family) []api.ProbeAnswer {
	var set probers.Set
	defer set.Close()
	answers := make([]api.ProbeAnswer, len(targets))
	var all sync.WaitGroup
	for i, t := range targets {
		all.Go(func() {
			answers[i] = api.ProbeAnswer{Family: familyName(f), Target: t.String()}
			rtt, err := askTarget(ctx, &set, u, u.On(f), t)
			if answers[i].RTTMs = milliseconds(rtt); err != nil {
				answers[i].Error, answers[i].RTTMs = err.Error(), 0
			}
		})
	}
	all.Wait()
	return answers
}

var errNoReply = errors.New("no reply")

func askTarget(ctx context.Context, set *probers.Set, u *uplinks.Uplink, on *uplinks.Side, t probe.Target) (time.Duration, error) {
	if u.Index == 0 || len(on.Addresses) == 0 {
		return 0, errors.New(on.Reason)
	}
	rtt, err := set.Probe(ctx, probeLink(u, on), t)
	if err != nil && ctx.Err() != nil {
		return 0, errNoReply
	}
	return rtt, err
}
