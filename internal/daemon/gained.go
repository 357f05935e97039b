package daemon

import (
	"net/netip"
	"slices"

	"tapgw/uplinks"
)

// hideGained hides what an uplink that is in use receives at a new address, before the first session uses it, or the host's stack
// would answer the replies.
func (d *Daemon) hideGained(s *uplinks.Snapshot) error {
	if !gained(d.snapshot.Load(), s) {
		return nil
	}
	return d.applyRules(s)
}

// gained reports whether an uplink has an address that it had not before.
func gained(before, now *uplinks.Snapshot) bool {
	return slices.ContainsFunc(now.Uplinks, func(u *uplinks.Uplink) bool {
		old := before.ByID(u.ID)
		return old != nil && slices.ContainsFunc(uplinks.Families[:], func(f uplinks.Family) bool {
			return slices.ContainsFunc(u.On(f).Addresses, func(a netip.Addr) bool { return !slices.Contains(old.On(f).Addresses, a) })
		})
	})
}
