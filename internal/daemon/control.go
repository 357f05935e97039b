package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tapgw/api"
	"tapgw/internal/hostconf"
	"tapgw/nat"
	"tapgw/probe"
	"tapgw/uplinks"
	"tapgw/uplinks/nft"
	"tapgw/uplinks/rtnl"
	"tapgw/uplinks/wire"
)

// renewEvery is how often a gateway behind which nothing answers is asked for its MAC address anew.
const renewEvery = 5 * time.Second

// verdict is what a prober says of a side of an uplink.
type verdict struct {
	side
	link probe.Link // that was probed
	probe.Verdict
}

// command is something the API asks of the control loop.
type command struct {
	do   func() error
	done chan error
}

// judged passes a verdict to the control loop. A round whose verdict finds no room is followed by the next.
func (d *Daemon) judged(at side, link probe.Link, v probe.Verdict) {
	d.tally.probed(at, v.Good)
	select {
	case d.verdicts <- verdict{at, link, v}:
	default:
	}
}

// ask has the control loop do something and waits for it.
func (d *Daemon) ask(do func() error) error {
	c := command{do, make(chan error, 1)}
	select {
	case d.commands <- c:
		return <-c.done
	case <-d.stopped:
		return fmt.Errorf("%w: the daemon is stopping", api.ErrConflict)
	}
}

// control is the only goroutine that changes the kernel. Whatever happens means "look at everything again"; nothing is
// patched. It returns an error when the TAP cannot be read any more.
func (d *Daemon) control(ctx context.Context) error {
	defer close(d.stopped)
	var last looks
	for {
		var err error
		select {
		case <-ctx.Done():
			d.notifyStopping()
			return nil
		case <-d.changed:
			d.stir()
			err = d.converge(ctx)
		case <-d.rulesChanged:
			err = d.takeRules(ctx)
		case v := <-d.verdicts:
			err = d.takeVerdict(ctx, v)
		case s := <-d.suspicions:
			d.takeSuspicion(s)
		case c := <-d.commands:
			refused := c.do()
			err = d.converge(ctx)
			c.done <- refused // whoever asked finds it in force
		case <-d.checkDue:
			err = d.check(ctx, &last)
		}
		if ctx.Err() == nil {
			d.complain(err)
		}
		if failure := d.pumps.failure.Load(); failure != nil {
			return *failure
		}
	}
}

// complain logs what went wrong.
func (d *Daemon) complain(err error) {
	if err != nil && d.complaints.fresh(err.Error(), time.Now()) {
		d.log.Warn("not everything is as it should be, trying again", "error", err)
	}
}

// takeVerdict publishes a new state of health; only a change of state is worth more than that.
func (d *Daemon) takeVerdict(ctx context.Context, v verdict) error {
	if !d.prober.probes(v.side, v.link) {
		return nil // what was probed is not what the uplink is now
	}
	d.hear(v)
	if g := d.gateway.For(v.family); g != nil && !v.Good.IsZero() {
		g.Vouch(v.uplink, time.Since(v.Good))
	}
	if errors.Is(d.tracker.SetHealth(v.uplink, v.family, healthOf(v.Verdict)), uplinks.ErrUnknown) {
		return nil // it left meanwhile
	}
	snapshot, events := d.tracker.Refresh(time.Now())
	err := d.publish(snapshot, events)
	if len(events) == 0 {
		return err
	}
	return errors.Join(err, d.converge(ctx))
}

// converge makes everything follow the kernel's present facts. It publishes the uplinks first, so that sessions leave a
// dead one before slower things happen.
func (d *Daemon) converge(ctx context.Context) error {
	err := d.follow(ctx)
	d.unfinished = err != nil || d.rivalry.mustWait(time.Now())
	return err
}

func (d *Daemon) follow(ctx context.Context) error {
	d.endPause(time.Now())
	d.endHostPins(time.Now())
	rerouted := d.setRerouted()
	facts, err := d.readFacts(time.Now())
	if err != nil {
		return errors.Join(rerouted, err)
	}
	snapshot, events := d.tracker.Update(time.Now(), facts)
	errs := []error{rerouted, d.followPorts(snapshot), d.hideGained(snapshot), d.publish(snapshot, events), d.followTAPAddress(snapshot, facts)}
	errs = append(errs, d.checkTAP(snapshot), d.checkUpcall(), d.applyHost(snapshot, facts), d.followLAN(facts),
		d.followTurned(facts), d.followUntracked(), d.applyRules(snapshot), d.applyRoutes(snapshot, facts))
	d.keepNeighbours(snapshot)
	d.prober.follow(ctx, snapshot, len(events) > 0)
	return errors.Join(errs...)
}

// noGeneration is one that no uplink ever has.
const noGeneration = 0

// publish gives everyone the new view, and ends the sessions of addresses and uplinks that are gone: a later uplink may get
// the same ID.
func (d *Daemon) publish(s *uplinks.Snapshot, events []uplinks.Event) error {
	errs := []error{d.announceAddresses(s)}
	old := d.snapshot.Swap(s)
	d.gateway.SetUplinks(s)
	errs = append(errs, d.setUplinks(old, s))
	d.tables.each(func(f uplinks.Family, table *nat.Table) {
		before, now := old.For(f), s.For(f)
		d.severLost(f, before, now)
		d.purge(table, before, now)
		d.severDead(f, now)
		for _, u := range now.Uplinks {
			errs = append(errs, d.preparePorts(f, u))
		}
	})
	for _, e := range events {
		d.tally.changed(e, s)
		d.journal.uplink(e)
	}
	return errors.Join(errs...)
}

// purge ends the sessions of addresses and uplinks that a family has no more.
func (d *Daemon) purge(table *nat.Table, old, s *uplinks.Snapshot) {
	now := d.pumps.clock.tick()
	for _, before := range old.Uplinks {
		switch u := s.ByID(before.ID); {
		case u == nil:
			table.Purge(before.ID, noGeneration, now)
		case before.Generation != u.Generation:
			table.Purge(u.ID, u.Generation, now)
		case u.Ready(): // a retired address may be gone
			table.Retain(u.ID, u.Outside(), now)
		}
	}
}

// applyHost sets the sysctls that forwarding and several uplinks need.
func (d *Daemon) applyHost(s *uplinks.Snapshot, f uplinks.Facts) error {
	err := d.host.Apply(hostconf.Wanted{
		TAP: d.pumps.tap.Load().Name(), Upcall: d.pumps.upcall.Load().Name(), Uplinks: interfaces(s), Facts: f,
		IPv6: d.capturesIPv6(),
	})
	if changed := d.host.Overridden(); len(changed) > 0 {
		d.repaired("set again, someone had changed it: " + strings.Join(changed, ", "))
	}
	return err
}

// interfaces lists the uplinks' devices that exist.
func interfaces(s *uplinks.Snapshot) (names []string) {
	for _, u := range s.Uplinks {
		if u.Index != 0 {
			names = append(names, u.Interface)
		}
	}
	return names
}

// applyRules sets our nftables objects.
func (d *Daemon) applyRules(s *uplinks.Snapshot) error {
	w := nft.Wanted{
		TAP: d.pumps.tap.Load().Name(), TAPIndex: d.pumps.tap.Load().Index(), Address: d.cfg().TAP.Address.Addr(),
		Upcall: d.pumps.upcall.Load().Name(), LAN: len(d.host.LAN()) > 0, Paused: d.isPaused(),
		Untracked: d.untracked.lan[uplinks.IPv4], UntrackedV6: d.untracked.lan[uplinks.IPv6],
		UntrackedHost: d.untracked.host[uplinks.IPv4], UntrackedHostV6: d.untracked.host[uplinks.IPv6],
		IPv6: d.capturesIPv6(), NoMasqueradeV6: d.ruleset.noMasqueradeV6, AddressesV6: addressesOn(d.tapAddresses),
		Prefixes: d.prefixes(s),
	}
	w.Exempt, w.ExemptInsides = exemptions(d.cfg())
	for _, r := range d.pool {
		w.Ports = append(w.Ports, nft.PortRange(r))
	}
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		w.Uplinks = append(w.Uplinks, nft.Uplink{
			Name: u.Interface, Index: u.Index, HeaderLess: u.HeaderLess,
			Addresses: d.carried(u, addresses), Whole: d.carried(u, (*uplinks.Side).Whole), Insides: d.carried(u, (*uplinks.Side).Insides),
			GiveBackMAC: wire.GiveBackMAC(d.seed, u.ID), Taken: d.ports[u.ID].taken,
			Guard: d.host.Forwarding(u.Interface), GuardV6: d.host.ForwardingV6(u.Interface),
		})
	}
	return d.applyWanted(w)
}

// applyRoutes sets rules and routes, and says when somebody had removed them.
func (d *Daemon) applyRoutes(s *uplinks.Snapshot, f uplinks.Facts) error {
	if d.rivalry.mustWait(time.Now()) {
		return nil
	}
	report, err := d.routes.Apply(uplinks.Plan(s, f, d.captured()))
	err = errors.Join(err, d.tellLost(report))
	if len(report.Demoted) > 0 {
		err = errors.Join(err, recordDemoted(d.host, report.Demoted))
	}
	return err
}

// tellLost tells of what somebody had removed, and not the kernel itself with a device or an address.
func (d *Daemon) tellLost(report rtnl.Report) error {
	var lost []string
	err := d.shaken.Look()
	for _, r := range report.LostRoutes {
		if !d.shaken.Has(r.Index) {
			lost = append(lost, fmt.Sprintf("route %s of table %d", r.Dst, r.Table))
		}
	}
	for _, r := range report.LostRules {
		lost = append(lost, fmt.Sprintf("rule %d", r.Priority))
	}
	if len(lost) == 0 {
		return err
	}
	if d.rivalry.repaired(time.Now()) {
		d.log.Warn(rivalAdvice)
	}
	d.repaired("put back, someone had removed it: " + strings.Join(lost, ", "))
	return err
}

// gateways calls yield with each side whose gateway the kernel must ask for its MAC address; one that the user has pinned would lose
// that.
func gateways(s *uplinks.Snapshot, yield func(u *uplinks.Uplink, at side, on *uplinks.Side)) {
	for _, u := range s.Uplinks {
		for _, f := range uplinks.Families {
			if on := u.On(f); u.Index != 0 && !u.HeaderLess && on.Gateway.IsValid() && !on.Pinned {
				yield(u, side{u.ID, f}, on)
			}
		}
	}
}

// keepNeighbours has the kernel resolve gateways that nothing of its own talks to, and anew those that seem dead.
func (d *Daemon) keepNeighbours(s *uplinks.Snapshot) {
	gateways(s, func(u *uplinks.Uplink, at side, on *uplinks.Side) {
		resolve := d.kernel.KeepNeighbour
		if on.State == uplinks.Down && time.Since(d.renewed[at]) >= renewEvery {
			d.renewed[at], resolve = time.Now(), d.kernel.RenewNeighbour
		}
		if err := resolve(u.Index, on.Gateway); err != nil {
			d.log.Debug("gateway not resolved", "uplink", u.Name, "error", err)
		}
	})
}

// releaseNeighbours ends what keepNeighbours asked for, or the kernel would probe the gateways for ever.
func (d *Daemon) releaseNeighbours() {
	gateways(d.snapshot.Load(), func(u *uplinks.Uplink, _ side, on *uplinks.Side) {
		if err := d.kernel.ReleaseNeighbour(u.Index, on.Gateway); err != nil {
			d.log.Debug("gateway still kept", "uplink", u.Name, "error", err)
		}
	})
}

// repaired tells that something of ours had been changed by others.
func (d *Daemon) repaired(what string) { d.journal.note(api.EventRepair, what, time.Now()) }

// demotedKey is where the journal of changes keeps the default routes that were moved behind ours.
const demotedKey = "demoted_routes"

// recordDemoted adds to the journal; a route that its owner added again and again is there once.
func recordDemoted(g *hostconf.Guard, more []rtnl.Record) error {
	records, err := demoted(g)
	if err != nil {
		return err
	}
	for _, m := range more {
		if !slices.Contains(records, m) {
			records = append(records, m)
		}
	}
	return g.Put(demotedKey, records)
}

// restoreRoutes removes our routes and rules and gives demoted routes their metric back.
func (d *Daemon) restoreRoutes() error {
	return errors.Join(d.routes.Cleanup(), restoreDemoted(d.routes, d.host))
}

// restoreDemoted gives the routes of the journal their metric back, and forgets them when all have it.
func restoreDemoted(r *rtnl.Reconciler, g *hostconf.Guard) error {
	records, err := demoted(g)
	if err != nil {
		return err
	}
	if err := r.Restore(records); err != nil {
		return err
	}
	return g.Put(demotedKey, nil)
}

func demoted(g *hostconf.Guard) (records []rtnl.Record, err error) {
	_, err = g.Get(demotedKey, &records)
	return records, err
}
