package hostconf

import (
	"slices"

	"golang.org/x/sys/unix"
)

// lanV6 names the interfaces with hosts of IPv6 behind them, sorted, where IPv6 is captured. They are found as those of IPv4, on
// their own facts.
func (w Wanted) lanV6(known []string) []string {
	if !w.IPv6 {
		return nil
	}
	w.Facts.Addresses, w.Facts.Routes, w.Facts.Neighbours = w.Facts.V6.Addresses, w.Facts.V6.Routes, w.Facts.V6.Neighbours
	return LANInterfaces(w, known)
}

// routingV6 switches forwarding on where hosts of IPv6 are behind us: on interface by interface where the kernel can (Linux 6.17),
// else on all. Where the user has it on, nothing is to be done. The LAN's interfaces become routers last, by their own switch too,
// which BPF programs ask, and neighbour discovery (a host forgets a default router that says it is none, RFC 4861 §7.3.3). When
// anything becomes a router all advertised default routes are gone at once, unless accept_ra is 2, which is therefore set before. An
// interface that is a router by force only still hears others, so that any host of the LAN could make itself an uplink: there
// accept_ra becomes 0.
func routingV6(w Wanted, lan []string, was func(string) (string, bool)) (list []setting) {
	all, known := was(forwardingV6)
	if !w.IPv6 || !known {
		return nil
	}
	_, single := was(sysctlPathV6(w.TAP, "force_forwarding"))
	wanted := len(lan) > 0 && all == "0"
	if all == "1" || wanted {
		list = change(list, w.hearingRouters(), "accept_ra", "1", "2", was)
	}
	switch {
	case !wanted:
	case single:
		list = change(list, lan, "accept_ra", "1", "0", was)
		list = change(list, append(append([]string{w.TAP}, w.Uplinks...), lan...), "force_forwarding", "0", "1", was)
		list = change(list, lan, "forwarding", "0", "1", was)
	default:
		list = append(list, setting{forwardingV6, "1"})
	}
	return list
}

// hearingRouters names the interfaces whose default routes may be advertised ones: the uplinks, and what the user keeps for himself.
func (w Wanted) hearingRouters() []string {
	names, known := slices.Clone(w.Uplinks), namesOf(w.Facts.Links)
	for _, r := range w.Facts.V6.Routes {
		if name := known[r.Index]; r.Protocol == unix.RTPROT_RA && r.Dst.Bits() == 0 && name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// change adds a setting of IPv6 where it has the value from.
func change(list []setting, interfaces []string, name, from, to string, was func(string) (string, bool)) []setting {
	for _, iface := range interfaces {
		path := sysctlPathV6(iface, name)
		if own, ok := was(path); ok && own == from {
			list = append(list, setting{path, to})
		}
	}
	return list
}

// ForwardingV6 is Forwarding for IPv6.
func (g *Guard) ForwardingV6(iface string) bool {
	return g.journal.find(forwardingV6) >= 0 || g.journal.find(sysctlPathV6(iface, "force_forwarding")) >= 0
}
