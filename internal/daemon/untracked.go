package daemon

import (
	"errors"
	"fmt"
	"slices"

	"tapgw/configs"
	"tapgw/uplinks"
)

// untracked is whose packets by the TAP stay out of the kernel's connection tracking, as nobody's rules meet them.
type untracked struct {
	host   [len(uplinks.Families)]bool
	onward [len(uplinks.Families)]bool  // nobody's rules meet what is for the host where it comes in by an uplink, either
	lan    [len(uplinks.Families)][]int // interface indexes
}

func (u *untracked) equal(o *untracked) bool {
	return u.host == o.host && u.onward == o.onward && slices.EqualFunc(u.lan[:], o.lan[:], slices.Equal[[]int])
}

// findUntracked looks whose packets nobody's rules meet; what cannot be read is tracked.
func (d *Daemon) findUntracked() (u untracked, err error) {
	for _, f := range uplinks.Families {
		if d.tables[f] == nil {
			continue
		}
		host, onward, hostErr := d.lookAtHost(f)
		lan, lanErr := d.untrackedPorts(f)
		u.host[f], u.onward[f], u.lan[f], err = host, onward, lan, errors.Join(err, hostErr, lanErr)
	}
	return u, err
}

// untrackedPorts are those of the LAN that the shortcut leads by; in userspace those that it could.
func (d *Daemon) untrackedPorts(f uplinks.Family) ([]int, error) {
	switch {
	case d.fast != nil:
		return d.lan.sides[f].ports, nil
	case len(d.lan.candidates) == 0, d.cfg().Datapath.LANShortcut == configs.LANShortcutOff:
		return nil, nil
	}
	bypassed, err := d.bypassed(f, d.lan.candidates)
	if err != nil || len(bypassed) > 0 {
		return nil, err
	}
	return d.lan.candidates, nil
}

// lookAtHost reports whether nobody's rules meet what this host itself sends and receives by the TAP, and whether, in the kernel's
// datapath, none would meet what goes on to it from an uplink, with an address that such rules need not know.
func (d *Daemon) lookAtHost(f uplinks.Family) (unmet, onward bool, err error) {
	look := d.foreign.MetByHost
	if f == uplinks.IPv6 {
		look = d.foreign.MetByHostV6
	}
	atTAP, atUplinks, err := look(d.pumps.tap.Load().Index(), d.uplinkIndexes())
	if err != nil {
		return false, false, fmt.Errorf("look for rules that the host's packets meet: %w", err)
	}
	return len(atTAP) == 0, d.fast != nil && len(atUplinks) == 0, nil
}

// followUntracked makes applyRules, and the kernel's datapath, follow what others have.
func (d *Daemon) followUntracked() (err error) {
	d.untracked, err = d.findUntracked()
	return errors.Join(err, d.setHost())
}

// trackingIsStale reports whether others' rules want another answer than followUntracked found. Rules that cannot be read just now
// are looked at again soon.
func (d *Daemon) trackingIsStale() bool {
	u, err := d.findUntracked()
	return err == nil && !u.equal(&d.untracked)
}
