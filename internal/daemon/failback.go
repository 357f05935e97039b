package daemon

import (
	"time"

	"tapgw/nat"
	"tapgw/uplinks"
)

// failBack has sessions leave uplinks that stood in for others which work again, while the control loop goes on; at most once at
// a time.
func (d *Daemon) failBack() {
	s := d.snapshot.Load()
	if !d.hasStandIns(s) || !d.failingBack.CompareAndSwap(false, true) {
		return
	}
	d.readers.Go(func() {
		defer d.failingBack.Store(false)
		d.tables.each(func(f uplinks.Family, _ *nat.Table) {
			for _, u := range s.For(f).Uplinks {
				if emptied(u) {
					ended := d.gateway.For(f).Recovered(u, d.pumps.clock.tick(), time.Now())
					d.tellSevered(f, ended)
				}
			}
		})
	})
}

// emptied reports whether sessions are to leave an uplink when a better one works again.
func emptied(u *uplinks.Uplink) bool {
	return u.OnRecover == uplinks.OnRecoverDrain || u.OnRecover == uplinks.OnRecoverMove
}

// hasStandIns reports whether there can be any sessions to leave.
func (d *Daemon) hasStandIns(s *uplinks.Snapshot) bool {
	for _, u := range s.Uplinks {
		if emptied(u) && d.tables.on(u.ID) > 0 {
			return true
		}
	}
	return false
}

// standsIn names the uplink of a lower tier that works, while sessions are still on u; "" for none.
func (d *Daemon) standsIn(u *uplinks.Uplink) string {
	if d.tables.on(u.ID) == 0 {
		return ""
	}
	for _, o := range d.snapshot.Load().Uplinks {
		if o.Tier < u.Tier && (o.State.Usable() && o.Ready() || o.V6.State.Usable() && o.ReadyFor(uplinks.IPv6)) {
			return o.Name
		}
	}
	return ""
}
