package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// found counts the uplinks.
func found(h *host) Finding {
	all := h.uplinksThat(func(*uplinks.Uplink) bool { return true })
	switch len(all) {
	case 0:
		return fail("connect a network that has a default route (see \"ip route\")", "no uplink found")
	case 1:
		return ok("%s alone: a second one would add its speed, and stand in when it fails", all[0])
	}
	return ok("%s", words(all))
}

// defaultRoute looks for default routes that come before the one into the TAP, or will have to be moved for it.
func defaultRoute(h *host) Finding {
	var rivals, vpns []string
	for _, family := range uplinks.Families {
		f := h.Facts.Of(family)
		ours, captured := captureMetric(f, h.tap)
		for _, r := range f.Routes {
			if r.Table != uplinks.TableMain || r.Protocol == uplinks.Protocol || r.Index == 0 || !r.Dst.IsValid() || r.Dst.Bits() != 0 {
				continue
			}
			text := fmt.Sprintf("%s (metric %d)", h.device(r.Index), r.Metric)
			switch {
			case captured && r.Metric >= ours, !captured && r.Metric > 1:
			case len(h.uplinksThat(func(u *uplinks.Uplink) bool { return u.Index == r.Index })) == 0:
				vpns = append(vpns, text)
			default:
				rivals = append(rivals, text)
			}
		}
	}
	return judgeDefaults(h.running(), sorted(rivals), sorted(vpns))
}

// captureMetric is that of the default route into the TAP.
func captureMetric(f uplinks.Facts, tap uplinks.Link) (metric int, captured bool) {
	for _, r := range f.Routes {
		if r.Index == tap.Index && tap.Index != 0 && r.Dst.IsValid() && r.Dst.Bits() == 0 {
			return r.Metric, true
		}
	}
	return 0, false
}

func judgeDefaults(running bool, rivals, vpns []string) Finding {
	switch {
	case len(rivals) > 0 && running:
		return fail("give it a higher metric where it is configured", "the default route by %s comes before tapgw's", words(rivals))
	case len(rivals) > 0:
		return warn("give it a metric of 100 or more where it is configured; tapgw moves it while it runs", "the default route by %s leaves no room before it", words(rivals))
	case len(vpns) > 0:
		return ok("the default route by %s comes first, and what that sends is balanced", words(vpns))
	}
	return ok("none comes before tapgw's")
}

// subnets looks for uplinks whose subnets overlap, mostly two connections to one router.
func subnets(h *host) Finding {
	var same []string
	h.pairs(func(a, b *uplinks.Uplink) {
		if p, overlap := h.overlap(a.Index, b.Index); overlap {
			same = append(same, fmt.Sprintf("%s and %s (%s)", a.Interface, b.Interface, p))
		}
	})
	if len(same) > 0 {
		return warn("give one router's LAN another subnet; if it is one router, the two are one way to the Internet", "in the same subnet: %s", words(same))
	}
	return ok("every uplink has a subnet of its own")
}

// gateways looks for uplinks that lead to the same device.
func gateways(h *host) Finding {
	var same []string
	h.pairs(func(a, b *uplinks.Uplink) {
		if mac := h.gatewayMAC(a); mac != [6]byte{} && mac == h.gatewayMAC(b) {
			same = append(same, a.Interface+" and "+b.Interface)
		}
	})
	if len(same) > 0 {
		return warn("they share one line, and fail together: leave one of them out of tapgw.yaml", "the same router behind %s", words(same))
	}
	return ok("no two uplinks lead to the same router")
}

func (h *host) pairs(look func(a, b *uplinks.Uplink)) {
	for i, a := range h.list {
		for _, b := range h.list[i+1:] {
			look(a, b)
		}
	}
}

func (h *host) gatewayMAC(u *uplinks.Uplink) (mac [6]byte) {
	for _, n := range h.Facts.Neighbours {
		if n.Index == u.Index && n.Addr == u.Gateway {
			mac = n.MAC
		}
	}
	return mac
}

// overlap is a subnet that two interfaces have both.
func (h *host) overlap(a, b int) (subnet netip.Prefix, overlap bool) {
	for _, p := range h.subnets(a) {
		if slices.ContainsFunc(h.subnets(b), p.Overlaps) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func (h *host) subnets(index int) (list []netip.Prefix) {
	for _, a := range slices.Concat(h.Facts.Addresses, h.Facts.V6.Addresses) {
		if a.Index == index && !a.Prefix.IsSingleIP() && !a.Prefix.Addr().IsLinkLocalUnicast() {
			list = append(list, a.Prefix.Masked())
		}
	}
	return list
}

// overlaps looks for subnets of uplinks that are also those of the LAN, of containers or of a VPN.
func overlaps(h *host) Finding {
	var both []string
	for _, u := range h.list {
		for _, l := range h.Facts.Links {
			if l.Loopback || len(h.uplinksThat(func(u *uplinks.Uplink) bool { return u.Index == l.Index })) > 0 {
				continue
			}
			if p, overlap := h.overlap(u.Index, l.Index); overlap {
				both = append(both, fmt.Sprintf("%s on %s and %s", p, u.Interface, l.Name))
			}
		}
	}
	if len(both) > 0 {
		return fail("give the network that is yours another subnet: hosts of the one cannot be told from those of the other", "%s", words(sorted(both)))
	}
	return ok("no uplink has a subnet of the LAN, of containers or of a VPN")
}

// neighbour is somebody whose routing rules are known.
type neighbour struct {
	name        string
	first, last int // priorities
	table       int // 0 for any
}

var neighbours = []neighbour{
	{"Tailscale", 5200, 5299, 0}, {"Tailscale", 1310, 1370, 52}, {"WireGuard (NetworkManager)", 30768, 31767, 0},
	{"WireGuard (wg-quick)", 0, 32765, 51820}, {"Mullvad", 0, 32765, 0x6d6f6c65},
}

// rules looks for routing rules of others, which come before the default route into the TAP.
func rules(*host) Finding {
	list, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return unknown("", "cannot read the routing rules: %v", err)
	}
	var known, strange []string
	for _, r := range list {
		if r.Protocol == uplinks.Protocol || ours(r.Priority) || r.Table < 1 || r.Table == unix.RT_TABLE_LOCAL ||
			r.Table == unix.RT_TABLE_MAIN || r.Table == unix.RT_TABLE_DEFAULT {
			continue
		}
		text := fmt.Sprintf("%d: lookup %d", r.Priority, r.Table)
		if name := whose(r); name != "" {
			known = append(known, name)
		} else {
			strange = append(strange, text)
		}
	}
	switch known = sorted(known); {
	case len(strange) > 0:
		return warn("see \"ip rule\": what they match passes tapgw by", "rules of others come first: %s", words(sorted(strange)))
	case len(known) > 0:
		return ok("%s has rules that come first; what its tunnel sends is balanced", words(known))
	}
	return ok("no routing rules of others")
}

func ours(priority int) bool { return priority >= uplinks.ResolverRule && priority <= uplinks.RuleLast }

// whose is the name of who makes such rules, "" for nobody that is known.
func whose(r netlink.Rule) string {
	for _, n := range neighbours {
		if r.Priority >= n.first && r.Priority <= n.last && (n.table == 0 || r.Table == n.table) {
			return n.name
		}
	}
	return ""
}
