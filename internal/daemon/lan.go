package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tapgw/configs"
	"tapgw/tapgw/fastpath"
	"tapgw/uplinks"
)

// lanPath is the way of known sessions between the LAN and the uplinks that bypasses the host's own forwarding.
type lanPath struct {
	candidates []int // interface indexes of the LAN
	ports      []int // those that the programs are attached to
	sides      [len(uplinks.Families)]lanSide
	unread     time.Time // since when the firewall cannot be read
}

// lanSide is the way of one family.
type lanSide struct {
	lanWay
	why atomic.Pointer[string] // shared
}

// lanWay is what the kernel and the gateway know of a way.
type lanWay struct {
	ports []int // that it leads by
	ways  uplinks.Ways
	hops  []fastpath.Hop // the kernel's
}

func (w *lanWay) equal(o *lanWay) bool {
	return w.ways.Equal(o.ways) && slices.Equal(w.hops, o.hops) && slices.Equal(w.ports, o.ports)
}

// status reports whether the shortcut of IPv4 is on, and if not why.
func (l *lanPath) status() (on bool, why string) { return l.statusOf(uplinks.IPv4) }

func (l *lanPath) statusOf(f uplinks.Family) (on bool, why string) {
	if w := l.sides[f].why.Load(); w != nil {
		return *w == "", *w
	}
	return false, "the fast path is off"
}

// forget has the programs attached to a port again with the next look.
func (l *lanPath) forget(index int) {
	l.ports = slices.DeleteFunc(slices.Clone(l.ports), func(port int) bool { return port == index })
}

// lanPorts are the devices of the LAN whose packets have an Ethernet header.
func (d *Daemon) lanPorts(f uplinks.Facts) (ports []uplinks.Link) {
	for _, l := range f.Links {
		if slices.Contains(d.host.LAN(), l.Name) && !l.HeaderLess {
			ports = append(ports, l)
		}
	}
	return ports
}

// whyNoShortcut says in a clause what speaks against the shortcut of a family, "" for nothing.
func (d *Daemon) whyNoShortcut(f uplinks.Family, ports []int) string {
	switch {
	case d.tables[f] == nil:
		return "IPv6 is not captured"
	case d.cfg().Datapath.LANShortcut == configs.LANShortcutOff:
		return "the configuration wants it so"
	case len(ports) == 0:
		return "no LAN behind this host"
	}
	bypassed, err := d.bypassed(f, ports)
	if err == nil {
		d.lan.unread = time.Time{}
		return strings.Join(bypassed, "; ")
	}
	if d.lan.unread.IsZero() {
		d.lan.unread = time.Now()
	}
	if time.Since(d.lan.unread) < unreadLimit {
		if on, why := d.lan.statusOf(f); on || why != "" {
			return why // rules that change while they are read are readable soon
		}
	}
	d.complain(err)
	return "the firewall cannot be read"
}

// unreadLimit is how long looks at the firewall may fail.
const unreadLimit = 2 * checkEvery

// bypassed lists what of the host's acts on packets that the shortcut would take past it.
func (d *Daemon) bypassed(f uplinks.Family, ports []int) ([]string, error) {
	own, err := d.ownPrograms()
	if err != nil {
		return nil, err
	}
	look := d.foreign.Bypassed
	if f == uplinks.IPv6 {
		look = d.foreign.BypassedV6
	}
	list, err := look(d.pumps.tap.Load().Index(), ports, own...)
	if err != nil {
		return nil, fmt.Errorf("look for forward rules: %w", err)
	}
	return list, nil
}

// shortcutIsStale reports whether the firewall speaks another word on the shortcut than followLAN heard last.
func (d *Daemon) shortcutIsStale() bool {
	if d.fast == nil || len(d.lan.candidates) == 0 {
		return false
	}
	return slices.ContainsFunc(uplinks.Families[:], func(f uplinks.Family) bool {
		_, before := d.lan.statusOf(f)
		return d.whyNoShortcut(f, d.lan.candidates) != before
	})
}

// followLAN makes the shortcut follow routes, devices and firewall rules. Packets of its sessions take the host's way, in
// both directions, while it changes.
func (d *Daemon) followLAN(facts uplinks.Facts) error {
	links := d.lanPorts(facts)
	d.lan.candidates = indexes(links)
	if d.fast == nil {
		return nil
	}
	var ports []int
	var whys [len(uplinks.Families)]string
	for _, f := range uplinks.Families {
		whys[f] = d.whyNoShortcut(f, d.lan.candidates)
	}
	var next [len(uplinks.Families)]lanWay
	for _, f := range uplinks.Families {
		if whys[f] == "" {
			next[f].ports, ports = d.lan.candidates, d.lan.candidates
		}
		next[f].ways = uplinks.FindWays(facts.Of(f), next[f].ports)
		next[f].hops = hopsOf(next[f].ways, links)
	}
	err := d.moveLAN(ports, next)
	for _, f := range uplinks.Families { // once it is so
		d.tellShortcut(f, whys[f])
	}
	return err
}

// tellShortcut says why a family has no shortcut, "" that it has one.
func (d *Daemon) tellShortcut(f uplinks.Family, why string) {
	if before := d.lan.sides[f].why.Swap(&why); before == nil || *before != why {
		d.log.Info("LAN shortcut", "family", familyName(f), "on", why == "", "reason", why)
	}
}

// moveLAN puts the programs on these ports, and has the families whose ways changed use the next ones.
func (d *Daemon) moveLAN(ports []int, next [len(uplinks.Families)]lanWay) error {
	stays := slices.Equal(ports, d.lan.ports)
	changed := slices.DeleteFunc(slices.Clone(uplinks.Families[:]), func(f uplinks.Family) bool {
		return stays && next[f].equal(&d.lan.sides[f].lanWay)
	})
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	for _, f := range changed {
		errs = append(errs, d.fast.SetHops(f, nil))
		if g := d.gateway.For(f); g != nil {
			g.SetWays(next[f].ways)
		}
		d.lan.sides[f].lanWay = lanWay{} // tried again with the next look where something fails
	}
	errs = append(errs, d.attachLAN(ports))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, f := range changed {
		d.lan.sides[f].lanWay = next[f]
		errs = append(errs, d.fast.SetHops(f, next[f].hops))
	}
	return errors.Join(errs...)
}

// attachLAN has the programs on these ports, and on no other.
func (d *Daemon) attachLAN(ports []int) error {
	var errs []error
	for _, index := range d.lan.ports {
		if !slices.Contains(ports, index) {
			errs = append(errs, d.fast.DetachLAN(index))
		}
	}
	for _, index := range ports {
		errs = append(errs, d.fast.AttachLAN(index))
	}
	d.lan.ports = ports
	return errors.Join(errs...)
}

func indexes(links []uplinks.Link) (list []int) {
	for _, l := range links {
		list = append(list, l.Index)
	}
	return list
}

// hopsOf gives the hops the MTU of their links.
func hopsOf(w uplinks.Ways, links []uplinks.Link) (hops []fastpath.Hop) {
	for _, h := range w.Hops {
		i := slices.IndexFunc(links, func(l uplinks.Link) bool { return l.Index == h.Index })
		hops = append(hops, fastpath.Hop{Index: h.Index, Gateway: h.Gateway, MTU: links[i].MTU})
	}
	return hops
}
