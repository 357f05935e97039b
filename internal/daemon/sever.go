package daemon

import (
	"slices"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	// renewing is how long an uplink that has lost no more than its addresses or gateway is given to get them back: some
	// renew a lease that way.
	renewing = 100 * time.Millisecond
	// answering is within how many intervals of probes one that is down must answer to be about to come back.
	answering = 2
	// maxTold is how many ends of connections whose address is lost are told at once; more learn it by their next segment.
	maxTold = 1 << 16
)

// dead is a side of an uplink that is down while another works.
type dead struct {
	since   time.Time // it was noticed
	severed bool      // its connections were reset
}

// heard is what probes have said of a side of an uplink.
type heard struct {
	good  time.Time // the end of the last good round
	doubt time.Time // that of the first bad one after it, zero before
}

// hear notes when a side answered, and asks the others when one does not: they must answer before its connections are reset. Where
// probes cost money that waits until it is found dead.
func (d *Daemon) hear(v verdict) {
	h := d.heard[v.side]
	switch {
	case v.Good.After(h.good):
		d.heard[v.side] = heard{good: v.Good}
	case h.doubt.IsZero():
		d.heard[v.side] = heard{h.good, time.Now()}
		s := d.snapshot.Load()
		d.prober.kick(v.family, func(id uint8) bool { u := s.ByID(id); return u != nil && !u.Metered })
	}
}

// severDead resets, towards the inside and once, the TCP connections of uplinks that are down while others work. Where no other
// works nothing is touched.
func (d *Daemon) severDead(f uplinks.Family, s *uplinks.Snapshot) {
	for id := range uint8(uplinks.MaxUplinks) {
		at, u := side{id, f}, s.ByID(id)
		if u == nil || !d.gateway.For(f).SeversAny() || !isDead(u) || !d.gateway.For(f).Avoids(u) {
			delete(d.dead, at)
			d.gateway.For(f).SetSevered(id, false)
			continue
		}
		one := d.dead[at]
		if one == nil {
			one = &dead{since: time.Now()}
			d.dead[at] = one
			d.prober.kick(f, func(uint8) bool { return true }) // the others must show that they work
		}
		if !one.severed && !d.mayResume(at, u, one) && d.replaced(at, s, one) {
			one.severed = true
			d.gateway.For(f).SetSevered(id, true)
			d.sever(f, u)
		}
	}
}

// mayResume reports whether an uplink that is down seems about to come back: it has just lost its lease, or answers again.
func (d *Daemon) mayResume(at side, u *uplinks.Uplink, one *dead) bool {
	if isRenewing(u) && d.waits(one, renewing) {
		return true
	}
	good := d.heard[at].good
	return good.After(u.Since) && time.Since(good) < answering*d.cfg().Probe.Interval
}

// waits reports whether one was found dead less than so long ago, and has the control loop look again when that is over.
func (d *Daemon) waits(one *dead, limit time.Duration) bool {
	left := limit - time.Since(one.since)
	if left > 0 {
		time.AfterFunc(left, d.lookAgain)
	}
	return left > 0
}

// replaced reports whether another uplink works for sure. What fails at the same time, as all do behind one switch, is found out one
// after the other: by their carriers within a look at the devices, by probes only when they have answered none since one was
// doubted.
func (d *Daemon) replaced(at side, s *uplinks.Snapshot, one *dead) bool {
	h := d.heard[at]
	if h.doubt.IsZero() || len(d.prober.plan.Of(at.family == uplinks.IPv6).Targets) == 0 {
		return !d.waits(one, lookEvery)
	}
	for _, u := range s.Uplinks {
		if u.ID != at.uplink && u.State.Usable() && u.Ready() && d.heard[side{u.ID, at.family}].good.After(h.doubt) {
			return true
		}
	}
	return false
}

// isDead reports whether nothing gets through by an uplink. One that is switched off lets its connections end.
func isDead(u *uplinks.Uplink) bool { return u.State == uplinks.Down || u.State == uplinks.Portal }

// isRenewing reports whether all that an uplink lacks is what a lease gives.
func isRenewing(u *uplinks.Uplink) bool {
	return u.Index != 0 && (len(u.Addresses) == 0 || !u.HeaderLess && !u.Gateway.IsValid())
}

// sever ends the connections of a side and tells their inside ends, while the control loop goes on.
func (d *Daemon) sever(f uplinks.Family, u *uplinks.Uplink) {
	d.readers.Go(func() {
		var list []nat.Severed
		n := 0
		for first := uint32(1); first != 0; n += len(list) {
			list, first = d.tables[f].Sever(u.ID, d.gateway.For(f).Severs, first, d.pumps.clock.tick(), list[:0])
			d.tellSevered(f, list)
		}
		if n > 0 {
			d.log.Info("connections were reset towards the inside, so that applications connect again", "uplink", u.Name,
				"family", familyName(f), "connections", n)
		}
	})
}

// severLost ends the TCP sessions of addresses that are gone, and tells their inside ends. It comes before these addresses'
// sessions are purged, which no other uplink can take over.
func (d *Daemon) severLost(f uplinks.Family, old, s *uplinks.Snapshot) {
	var list []nat.Severed
	for _, before := range old.Uplinks {
		lost := lostBy(before, s.ByID(before.ID))
		for first := uint32(1); lost != nil && first != 0 && len(list) < maxTold; {
			list, first = d.tables[f].Sever(before.ID, lost, first, d.pumps.clock.tick(), list)
		}
	}
	if len(list) > 0 {
		d.readers.Go(func() { d.tellSevered(f, list) })
	}
}

// lostBy tells which sessions of an uplink cannot go on as it is now, u, nil where it is gone. Nil where all can.
func lostBy(before, u *uplinks.Uplink) func(tr *nat.Translation, rule uint32) bool {
	switch {
	case u == nil:
		return func(*nat.Translation, uint32) bool { return true }
	case before.Generation != u.Generation:
		return func(tr *nat.Translation, _ uint32) bool { return tr.Generation != u.Generation }
	case !u.Ready():
		return nil // a retired address may come back
	}
	var gone []packet.Addr
	for _, a := range before.Outside() {
		if !slices.Contains(u.Outside(), a) {
			gone = append(gone, a)
		}
	}
	if gone == nil {
		return nil
	}
	return func(tr *nat.Translation, _ uint32) bool { return slices.Contains(gone, tr.Outside) }
}

// tellSevered writes the resets of severed sessions to where their inside is.
func (d *Daemon) tellSevered(f uplinks.Family, list []nat.Severed) {
	w := worker{pumps: d.pumps}
	for i := range list {
		d.gateway.For(f).Resets(&list[i], func(hop uint8, frame []byte) {
			if w.deliver(hop, frame) != nil {
				w.lost.Add(1)
			}
		})
	}
}
