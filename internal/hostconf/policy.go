package hostconf

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"tapgw/uplinks"
)

// Wanted is what the settings depend on.
type Wanted struct {
	TAP     string   // capture device
	Upcall  string   // give-back device, "" for none
	Uplinks []string // their interfaces
	Facts   uplinks.Facts
}

// learned are the states of a neighbour that answered or spoke to us: REACHABLE, STALE, DELAY, PROBE.
const learned = 0x02 | 0x04 | 0x08 | 0x10

// maxLANBits is the longest prefix that leaves room for a host behind this one.
const maxLANBits = 30

// LANInterfaces names the interfaces with hosts behind them, sorted: not an uplink, not ours, up, with a subnet in which a
// neighbour was learned. One that was known stays while it exists, because neighbours are forgotten when idle. One with a
// default route is a way to the Internet even when it is no uplink, and whoever is there must not use ours.
func LANInterfaces(w Wanted, known []string) (names []string) {
	for _, l := range w.Facts.Links {
		if l.Loopback || l.Name == w.TAP || l.Name == w.Upcall || slices.Contains(w.Uplinks, l.Name) || hasDefault(w.Facts, l.Index) {
			continue
		}
		if slices.Contains(known, l.Name) || l.Up && hasHosts(w.Facts, l.Index) {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names
}

func hasDefault(f uplinks.Facts, index int) bool {
	return slices.ContainsFunc(f.Routes, func(r uplinks.Route) bool { return r.Index == index && r.Dst.IsValid() && r.Dst.Bits() == 0 })
}

func hasHosts(f uplinks.Facts, index int) bool {
	return slices.ContainsFunc(f.Addresses, func(a uplinks.Address) bool {
		return a.Index == index && a.Prefix.Addr().Is4() && a.Prefix.Bits() <= maxLANBits && hasNeighbour(f, a)
	})
}

func hasNeighbour(f uplinks.Facts, a uplinks.Address) bool {
	return slices.ContainsFunc(f.Neighbours, func(n uplinks.Neighbour) bool {
		return n.Index == a.Index && n.State&learned != 0 && n.Addr != a.Prefix.Addr() && a.Prefix.Contains(n.Addr)
	})
}

// setting is a sysctl and the value it should have.
type setting struct{ path, value string }

// settings computes what to set from the values that hold without us; was reports false for what does not exist.
func settings(w Wanted, lan []string, was func(path string) (string, bool)) []setting {
	return append(looseFilters(w, was), forwarding(w, lan, was)...)
}

// looseFilters turns strict reverse path filters, which drop what comes in by another uplink than the one with the best
// route, into loose ones (RFC 3704 §2.4). The kernel uses the larger of the values for all and for the interface.
func looseFilters(w Wanted, was func(string) (string, bool)) (list []setting) {
	all, _ := was(sysctlPath("all", "rp_filter"))
	for _, name := range append([]string{w.TAP, w.Upcall}, w.Uplinks...) {
		path := sysctlPath(name, "rp_filter")
		if own, ok := was(path); ok && max(all, own) == "1" {
			list = append(list, setting{path, "2"})
		}
	}
	return list
}

// forwarding switches forwarding on interface by interface, and only where hosts are behind us: a laptop must not become
// a router. Where the global switch is on, exceptions are the user's choice, except on our own device.
func forwarding(w Wanted, lan []string, was func(string) (string, bool)) (list []setting) {
	if len(lan) == 0 {
		return nil
	}
	names := []string{w.TAP}
	if all, _ := was(sysctlPath("all", "forwarding")); all != "1" {
		names = append(append(names, lan...), w.Uplinks...)
	}
	for _, name := range names {
		path := sysctlPath(name, "forwarding")
		if own, ok := was(path); ok && own == "0" {
			list = append(list, setting{path, "1"})
		}
	}
	return list
}

// Apply makes the settings follow w: it sets what is wanted now, also on devices that came back, and puts back what is
// not wanted any more. Call it again after every change of the facts.
func (g *Guard) Apply(w Wanted) error {
	if err := g.followNames(w.Facts.Links); err != nil {
		return err
	}
	g.lan = LANInterfaces(w, g.lan)
	wanted := settings(w, g.lan, g.withoutUs)
	errs := []error{g.restore(func(e entry) bool {
		return !slices.ContainsFunc(wanted, func(s setting) bool { return s.path == e.Path })
	})}
	for _, s := range wanted {
		if err := g.Set(s.path, s.value); !errors.Is(err, fs.ErrNotExist) { // the device may have gone meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// followNames moves what is written down for an interface that got another name: its settings moved with it, and would
// else be taken for the user's.
func (g *Guard) followNames(links []uplinks.Link) error {
	renamed, names := make(map[string]string), make(map[int]string)
	for _, l := range links {
		names[l.Index] = l.Name
		if old := g.names[l.Index]; old != "" && old != l.Name {
			renamed[old] = l.Name
		}
	}
	g.names = names
	if len(renamed) == 0 {
		return nil
	}
	for i, name := range g.lan {
		if now, ok := renamed[name]; ok {
			g.lan[i] = now
		}
	}
	next := g.journal
	next.Sysctls = slices.Clone(next.Sysctls)
	for i, e := range next.Sysctls {
		iface, key, _ := strings.Cut(strings.TrimPrefix(e.Path, confDir+"/"), "/")
		if now, ok := renamed[iface]; ok {
			next.Sysctls[i].Path = sysctlPath(now, key)
		}
	}
	return g.replace(next)
}

// withoutUs is the value that path would have had we not changed it.
func (g *Guard) withoutUs(path string) (value string, ok bool) {
	value, err := readSysctl(path)
	if err != nil {
		return "", false
	}
	if i := g.find(path); i >= 0 && g.journal.Sysctls[i].New == value {
		return g.journal.Sysctls[i].Old, true
	}
	return value, true
}

// LAN reports whether there were hosts behind this one at the last Apply.
func (g *Guard) LAN() bool { return len(g.lan) > 0 }

// Forwarding reports whether it was us who switched forwarding on for an interface.
func (g *Guard) Forwarding(iface string) bool { return g.find(sysctlPath(iface, "forwarding")) >= 0 }
