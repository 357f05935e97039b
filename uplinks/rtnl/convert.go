package rtnl

import (
	"net"
	"net/netip"
	"reflect"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

func toRoute(r uplinks.Route) *netlink.Route {
	out := &netlink.Route{
		Family: familyOf(r.Dst.Addr()), Table: r.Table, Dst: toIPNet(r.Dst), Gw: toIP(r.Gateway), Src: toIP(r.Source),
		LinkIndex: r.Index, Priority: r.Metric, Protocol: netlink.RouteProtocol(r.Protocol), Type: unix.RTN_UNICAST,
	}
	if !r.Gateway.IsValid() {
		out.Scope = unix.RT_SCOPE_LINK
	}
	if r.OnLink {
		out.Flags = unix.RTNH_F_ONLINK
	}
	return out
}

// sameKey reports whether the kernel holds h and r to be the same entry: it allows one per destination and metric.
func sameKey(h netlink.Route, r uplinks.Route) bool {
	return h.Table == r.Table && h.Priority == r.Metric && h.Tos == 0 && destination(&h) == r.Dst
}

func sameRoute(h netlink.Route, r uplinks.Route) bool {
	one := fromRoute(&h)
	return len(one) == 1 && one[0] == r
}

func toRule(r uplinks.Rule) *netlink.Rule {
	out := netlink.NewRule()
	out.Family, out.Priority, out.Table, out.Protocol = familyOf(r.Source.Addr()), r.Priority, r.Table, uplinks.Protocol
	if r.Source.Bits() > 0 {
		out.Src = toIPNet(r.Source)
	}
	if r.Destination.IsValid() {
		out.Dst = toIPNet(netip.PrefixFrom(r.Destination, r.Destination.BitLen()))
	}
	if r.Port != 0 {
		out.Dport = netlink.NewRulePortRange(r.Port, r.Port)
	}
	if r.SuppressDefault {
		out.SuppressPrefixlen = 0
	}
	return out
}

// sameRule reports whether h is r and selects by nothing else.
func sameRule(h netlink.Rule, r uplinks.Rule) bool {
	want := toRule(r)
	narrowed := h.Mark != 0 || h.IifName != "" || h.OifName != "" || h.Tos != 0 || h.Invert ||
		h.IPProto != 0 || h.Sport != nil || h.UIDRange != nil || h.Goto > 0
	return !narrowed && h.Family == want.Family && h.Priority == r.Priority && h.Table == r.Table &&
		samePrefix(h.Src, want.Src) && samePrefix(h.Dst, want.Dst) && reflect.DeepEqual(h.Dport, want.Dport) &&
		(h.SuppressPrefixlen == 0) == r.SuppressDefault
}

// samePrefix compares what rules select by, nil for everything.
func samePrefix(a, b *net.IPNet) bool {
	if a == nil || b == nil {
		return a == b
	}
	return toPrefix(a) == toPrefix(b)
}

// familyOf is the number of an address's family.
func familyOf(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// families are those whose rules and routes are ours.
var families = [...]int{unix.AF_INET, unix.AF_INET6}
