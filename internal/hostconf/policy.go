package hostconf

import (
	"cmp"
	"errors"
	"maps"
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
	IPv6    bool // is captured
}

// learned are the states of a neighbour that answered or spoke to us: REACHABLE, STALE, DELAY, PROBE.
const learned = 0x02 | 0x04 | 0x08 | 0x10

// roomBits is how many bits of an address a subnet leaves at least that has room for a host behind this one.
const roomBits = 2

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
		room := a.Prefix.Addr().BitLen() - a.Prefix.Bits()
		return a.Index == index && room >= roomBits && !a.Prefix.Addr().IsLinkLocalUnicast() && hasNeighbour(f, a)
	})
}

// hasNeighbour reports whether a host in the subnet of a was learned, or by IPv6 on its link: hosts ask for their router from
// link-local addresses.
func hasNeighbour(f uplinks.Facts, a uplinks.Address) bool {
	return slices.ContainsFunc(f.Neighbours, func(n uplinks.Neighbour) bool {
		return n.Index == a.Index && n.State&learned != 0 && n.Addr != a.Prefix.Addr() &&
			(a.Prefix.Contains(n.Addr) || n.Addr.Is6() && n.Addr.IsLinkLocalUnicast())
	})
}

// setting is a sysctl and the value it should have.
type setting struct{ path, value string }

// settings computes what to set from the values that hold without us; was reports false for what does not exist.
func settings(w Wanted, lan []string, was func(path string) (string, bool)) []setting {
	return slices.Concat(looseFilters(w, was), forwarding(w, lan, was), turning(w, lan, was))
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
// a router. Where the global switch is on, exceptions are the user's choice, except on our own device. The LAN's come last, so
// that replies find their way once there are any.
func forwarding(w Wanted, lan []string, was func(string) (string, bool)) (list []setting) {
	if len(lan) == 0 {
		return nil
	}
	names := []string{w.TAP}
	if all, _ := was(sysctlPath("all", "forwarding")); all != "1" {
		names = append(append(names, w.Uplinks...), lan...)
	}
	for _, name := range names {
		path := sysctlPath(name, "forwarding")
		if own, ok := was(path); ok && own == "0" {
			list = append(list, setting{path, "1"})
		}
	}
	return list
}

// turning lets the TAP deliver packets with the address of an uplink as source: those of one LAN host to another's outside
// endpoint (RFC 4787 REQ-9).
func turning(w Wanted, lan []string, was func(string) (string, bool)) []setting {
	path := sysctlPath(w.TAP, "accept_local")
	if own, ok := was(path); !ok || own != "0" || len(lan) == 0 {
		return nil
	}
	return []setting{{path, "1"}}
}

// Apply makes the settings follow w: it sets what is wanted now, also on devices that came back, and puts back what is
// not wanted any more. Call it again after every change of the facts. The journal is written at most once.
func (g *Guard) Apply(w Wanted) error {
	names := namesOf(w.Facts.Links)
	renamed := renames(g.names, names)
	next, lan := follow(renamed, g.journal, g.lan)
	lan = LANInterfaces(w, lan)
	wanted := settings(w, lan, next.withoutUs)
	lanV6 := w.lanV6(renamedAll(renamed, g.lanV6))
	wanted = append(wanted, routingV6(w, lanV6, next.withoutUs)...)
	unwanted := func(e entry) bool {
		return !slices.ContainsFunc(wanted, func(s setting) bool { return s.path == e.Path })
	}
	next, restoring := next.restore(unwanted, func(e entry) bool {
		_, iface, _ := e.split()
		return slices.Contains(slices.Collect(maps.Values(names)), iface) // renamed since: the next facts tell its name
	})
	before := next
	next, changes, planning := next.plan(wanted)
	g.overridden = before.overridden(changes, func(iface string) bool { return sameDevice(g.names, names, iface) })
	if err := g.replace(next); err != nil { // before anything is set, so that whoever cleans up after a crash knows of it
		return errors.Join(restoring, planning, err)
	}
	g.lan, g.lanV6, g.names = lan, lanV6, names
	errs := []error{restoring, planning}
	for _, s := range changes {
		errs = append(errs, unlessGone(writeSysctl(s.path, s.value)))
	}
	return errors.Join(errs...)
}

// Overridden names the settings of ours that somebody else had changed before the last Apply, which set them again.
func (g *Guard) Overridden() []string { return g.overridden }

// overridden lists what has to be set again although we did already, on a device that is still the same.
func (j journal) overridden(changes []setting, same func(iface string) bool) (names []string) {
	for _, s := range changes {
		i := j.find(s.path)
		if i < 0 || j.Sysctls[i].New != s.value {
			continue
		}
		if _, iface, _ := j.Sysctls[i].split(); same(iface) {
			names = append(names, strings.ReplaceAll(strings.TrimPrefix(s.path, "/proc/sys/"), "/", "."))
		}
	}
	return names
}

// sameDevice reports whether an interface is the device that it was.
func sameDevice(before, after map[int]string, iface string) bool {
	for index, name := range after {
		if name == iface {
			return before[index] == iface
		}
	}
	return true // "all" and such
}

func namesOf(links []uplinks.Link) map[int]string {
	names := make(map[int]string)
	for _, l := range links {
		names[l.Index] = l.Name
	}
	return names
}

// renames maps old names to new ones.
func renames(before, after map[int]string) map[string]string {
	renamed := make(map[string]string)
	for index, now := range after {
		if old := before[index]; old != "" && old != now {
			renamed[old] = now
		}
	}
	return renamed
}

// follow moves what is known of an interface that got another name: its settings moved with it, and would else be taken for
// the user's.
func follow(renamed map[string]string, j journal, lan []string) (journal, []string) {
	if len(renamed) == 0 {
		return j, lan
	}
	taken := slices.Collect(maps.Values(renamed))
	lan = renamedAll(renamed, lan)
	var moved []entry
	for _, e := range j.Sysctls {
		dir, iface, key := e.split()
		e.Path = dir + "/" + cmp.Or(renamed[iface], iface) + "/" + key
		if _, is := renamed[iface]; is || !slices.Contains(taken, iface) { // else it is of a device that is gone
			moved = append(moved, e)
		}
	}
	j.Sysctls = moved
	return j, lan
}

// renamedAll are the present names.
func renamedAll(renamed map[string]string, names []string) (list []string) {
	for _, name := range names {
		list = append(list, cmp.Or(renamed[name], name))
	}
	return list
}

// withoutUs is the value that path would have had we not changed it.
func (j journal) withoutUs(path string) (value string, ok bool) {
	value, err := readSysctl(path)
	if err != nil {
		return "", false
	}
	if i := j.find(path); i >= 0 && j.Sysctls[i].New == value {
		return j.Sysctls[i].Old, true
	}
	return value, true
}

// LAN names the interfaces that had hosts of either family behind them at the last Apply, sorted; nobody may change the list.
func (g *Guard) LAN() []string {
	if len(g.lanV6) == 0 {
		return g.lan
	}
	all := slices.Concat(g.lan, g.lanV6)
	slices.Sort(all)
	return slices.Compact(all)
}

// Forwarding reports whether it was us who switched forwarding on for an interface.
func (g *Guard) Forwarding(iface string) bool {
	return g.journal.find(sysctlPath(iface, "forwarding")) >= 0
}
