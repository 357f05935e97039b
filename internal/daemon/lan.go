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
	ways       uplinks.Ways
	hops       []fastpath.Hop         // the kernel's
	why        atomic.Pointer[string] // shared
	unread     time.Time              // since when the firewall cannot be read
}

// status reports whether the shortcut is on, and if not why.
func (l *lanPath) status() (on bool, why string) {
	if w := l.why.Load(); w != nil {
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

// whyNoShortcut says in a clause what speaks against the shortcut, "" for nothing.
func (d *Daemon) whyNoShortcut(ports []int) string {
	switch {
	case d.cfg().Datapath.LANShortcut == configs.LANShortcutOff:
		return "the configuration wants it so"
	case len(ports) == 0:
		return "no LAN behind this host"
	}
	bypassed, err := d.bypassed(ports)
	if err == nil {
		d.lan.unread = time.Time{}
		return strings.Join(bypassed, "; ")
	}
	if d.lan.unread.IsZero() {
		d.lan.unread = time.Now()
	}
	if time.Since(d.lan.unread) < unreadLimit {
		if on, why := d.lan.status(); on || why != "" {
			return why // rules that change while they are read are readable soon
		}
	}
	d.complain(err)
	return "the firewall cannot be read"
}

// unreadLimit is how long looks at the firewall may fail.
const unreadLimit = 2 * checkEvery

// bypassed lists what of the host's acts on packets that the shortcut would take past it.
func (d *Daemon) bypassed(ports []int) ([]string, error) {
	own, err := d.fast.IDs()
	if err != nil {
		return nil, err
	}
	list, err := d.foreign.Bypassed(d.pumps.tap.Load().Index(), ports, own...)
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
	_, before := d.lan.status()
	return d.whyNoShortcut(d.lan.candidates) != before
}

// followLAN makes the shortcut follow routes, devices and firewall rules. Packets of its sessions take the host's way, in
// both directions, while it changes.
func (d *Daemon) followLAN(f uplinks.Facts) error {
	if d.fast == nil {
		return nil
	}
	links := d.lanPorts(f)
	ports := indexes(links)
	why := d.whyNoShortcut(ports)
	if before := d.lan.why.Swap(&why); before == nil || *before != why {
		d.log.Info("LAN shortcut", "on", why == "", "reason", why)
	}
	d.lan.candidates = ports
	if why != "" {
		ports = nil
	}
	ways := uplinks.FindWays(f, ports)
	hops := hopsOf(ways, links)
	if ways.Equal(d.lan.ways) && slices.Equal(hops, d.lan.hops) && slices.Equal(ports, d.lan.ports) {
		return nil
	}
	return d.moveLAN(ports, ways, hops)
}

func (d *Daemon) moveLAN(ports []int, ways uplinks.Ways, hops []fastpath.Hop) error {
	errs := []error{d.fast.SetHops(uplinks.IPv4, nil)}
	d.gateway.For(uplinks.IPv4).SetWays(ways)
	for _, index := range d.lan.ports {
		if !slices.Contains(ports, index) {
			errs = append(errs, d.fast.DetachLAN(index))
		}
	}
	for _, index := range ports {
		errs = append(errs, d.fast.AttachLAN(index))
	}
	if err := errors.Join(errs...); err != nil {
		d.lan.ways, d.lan.hops, d.lan.ports = uplinks.Ways{}, nil, ports // tried again with the next look
		return err
	}
	d.lan.ways, d.lan.hops, d.lan.ports = ways, hops, ports
	return d.fast.SetHops(uplinks.IPv4, hops)
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
