package daemon

import (
	"context"
	"errors"
	"time"

	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	// checkEvery is how often sessions age, and how soon what no message tells of is noticed.
	checkEvery = 4 * lookEvery
	// idleCheckEvery is how often others' sockets, and what they have in the way of packets, are looked at while there are none.
	idleCheckEvery = 4 * time.Second
	// convergeEvery is how often everything is looked at, whether or not netlink told of a change.
	convergeEvery = 20 * checkEvery
	// sweepShare of the table is looked at in each sweep.
	sweepShare = 8
)

// looks is when what no message tells of was looked at last.
type looks struct{ others, everything time.Time }

// due reports whether it is time to look again, and notes that it is done.
func due(last *time.Time, every time.Duration) bool {
	now := time.Now()
	if now.Sub(*last) < every {
		return false
	}
	*last = now
	return true
}

// check is the periodic look: at the age of sessions, at what no message tells of, and sometimes at everything.
func (d *Daemon) check(ctx context.Context, last *looks) error {
	d.age()
	var err error
	woke := d.pumps.clock.woke()
	if woke {
		d.prober.follow(ctx, d.snapshot.Load(), true)
		err = d.setClock()
	}
	everything := due(&last.everything, convergeEvery)
	capped := d.followUsage(time.Now())
	missing, gone := d.checkRules(time.Now(), everything)
	lost, unknown := d.verifyFastPath()
	err = errors.Join(err, gone, unknown)
	others := d.looksAtOthers(last)
	stale := others && (d.shortcutIsStale() || d.trackingIsStale())
	if others && d.findServices() {
		err = errors.Join(err, d.followPorts(d.snapshot.Load()))
	}
	if everything || woke || capped || missing || stale || len(lost) > 0 || d.unfinished {
		err = errors.Join(err, d.converge(ctx))
	}
	d.tellDetached(lost)
	if everything {
		err = errors.Join(err, d.followBypass(true))
	}
	return err
}

// age ends what has been idle for too long, and lets go of what is over.
func (d *Daemon) age() {
	d.tables.each(func(f uplinks.Family, table *nat.Table) {
		table.Sweep(d.pumps.clock.tick(), room(d.cfg(), f)/sweepShare)
	})
	d.gateway.SweepHelpers(d.pumps.clock.tick())
	d.releasePins()
	d.failBack()
	d.attend(time.Now())
	d.gateway.SetTime(time.Now())
	d.tellRefusals(time.Now())
}

// looksAtOthers reports whether it is time to look at others' sockets, and what they have in the way of packets. Where nothing goes on,
// that is more seldom; the first packet of a session has it looked at.
func (d *Daemon) looksAtOthers(last *looks) bool {
	every := time.Duration(0)
	if d.pace.Load().rest() {
		every = idleCheckEvery
	}
	return due(&last.others, every)
}
