package rtnl

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// Read reads everything anew: devices, and of both families addresses of global scope, routes of table main, neighbours.
func (k *Kernel) Read() (uplinks.Facts, error) {
	var f uplinks.Facts
	links, err := dump("devices", k.h.LinkList)
	if err != nil {
		return f, err
	}
	for _, l := range links {
		f.Links = append(f.Links, k.link(l))
	}
	v4, err := k.readFamily(unix.AF_INET)
	if err != nil {
		return f, err
	}
	f.Addresses, f.Routes, f.Neighbours, f.Ruled = v4.Addresses, v4.Routes, v4.Neighbours, v4.Ruled
	v6, err := k.readFamily(unix.AF_INET6)
	f.V6 = uplinks.FactsV6{Addresses: v6.Addresses, Routes: v6.Routes, Neighbours: v6.Neighbours, Ruled: v6.Ruled}
	return f, err
}

// readFamily reads what Facts holds of one family.
func (k *Kernel) readFamily(family int) (f uplinks.Facts, err error) {
	addrs, err := dump("addresses", func() ([]netlink.Addr, error) { return k.h.AddrList(nil, family) })
	if err != nil {
		return f, err
	}
	f.Addresses = addresses(addrs)
	routes, err := k.routes(family, unix.RT_TABLE_MAIN)
	if err != nil {
		return f, err
	}
	for i := range routes {
		f.Routes = append(f.Routes, found(&routes[i])...)
	}
	neighbours, err := dump("neighbours", func() ([]netlink.Neigh, error) { return k.h.NeighList(0, family) })
	for _, n := range neighbours {
		f.Neighbours = append(f.Neighbours, neighbour(n))
	}
	if err != nil {
		return f, err
	}
	rules, err := dump("rules", func() ([]netlink.Rule, error) { return k.h.RuleList(family) })
	f.Ruled = slices.ContainsFunc(rules, foreignRule)
	return f, err
}

// mainRule is the priority of the kernel's rule for table main. What comes after it sees nothing that has a default route.
const mainRule = 32766

// foreignRule is of rules that neither the kernel nor we have made, and that come before table main.
func foreignRule(r netlink.Rule) bool {
	return r.Priority > 0 && r.Priority < mainRule && r.Protocol != uplinks.Protocol && !ourRule(r)
}

func (k *Kernel) link(l netlink.Link) uplinks.Link {
	a := l.Attrs()
	out := uplinks.Link{
		Index:        a.Index,
		Name:         a.Name,
		MTU:          a.MTU,
		Up:           a.RawFlags&unix.IFF_UP != 0,
		Carrier:      a.RawFlags&unix.IFF_LOWER_UP != 0,
		Loopback:     a.RawFlags&unix.IFF_LOOPBACK != 0,
		PointToPoint: a.RawFlags&unix.IFF_POINTOPOINT != 0,
		HeaderLess:   a.EncapType != "ether" && a.EncapType != "loopback",
		Kind:         kind(l),
	}
	if !out.HeaderLess {
		copy(out.MAC[:], a.HardwareAddr)
	}
	out.Speed = k.speeds.of(a.Index, a.Name, out.Carrier)
	return out
}

// kind is the rtnl link kind; the library says "device" for hardware, which has none.
func kind(l netlink.Link) string {
	switch t := l.Type(); t {
	case "device":
		return ""
	case "tuntap":
		return "tun"
	default:
		return t
	}
}

// passing are the flags of addresses that sessions had better not be translated to.
const passing = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED | unix.IFA_F_TEMPORARY

func addresses(list []netlink.Addr) []uplinks.Address {
	var out []uplinks.Address
	for _, a := range list {
		addr, ok := toAddr(a.IP)
		if !ok || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		bits, _ := a.Mask.Size()
		address := uplinks.Address{Index: a.LinkIndex, Passing: addr.Is6() && a.Flags&passing != 0}
		address.Deprecated = addr.Is6() && a.Flags&passing == unix.IFA_F_DEPRECATED
		if a.Peer != nil {
			address.Peer, _ = toAddr(a.Peer.IP)
			bits, _ = a.Peer.Mask.Size() // the prefix length of the subnet belongs to the peer
		}
		address.Prefix = netip.PrefixFrom(addr, bits)
		out = append(out, address)
	}
	return out
}

func neighbour(n netlink.Neigh) uplinks.Neighbour {
	out := uplinks.Neighbour{Index: n.LinkIndex, State: n.State}
	out.Addr, _ = toAddr(n.IP)
	if len(n.HardwareAddr) == len(out.MAC) {
		copy(out.MAC[:], n.HardwareAddr)
	}
	return out
}

// toAddr converts an address; false when ip is none.
func toAddr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// routes lists the routes of a table, of all types, or of all tables with RT_TABLE_UNSPEC.
func (k *Kernel) routes(family, table int) ([]netlink.Route, error) {
	filter := &netlink.Route{Table: table}
	return dump("routes", func() ([]netlink.Route, error) {
		return k.h.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
	})
}

// fromRoute converts a unicast route, one for each next hop; other types yield nothing.
func fromRoute(r *netlink.Route) []uplinks.Route {
	if r.Type != unix.RTN_UNICAST {
		return nil
	}
	base := uplinks.Route{Table: r.Table, Dst: destination(r), Metric: r.Priority, Protocol: int(r.Protocol)}
	base.Source, _ = toAddr(r.Src)
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Flags: r.Flags}}
	}
	var out []uplinks.Route
	for _, hop := range hops {
		one := base
		one.Index, one.OnLink = hop.LinkIndex, hop.Flags&unix.RTNH_F_ONLINK != 0
		one.Gateway, _ = toAddr(hop.Gw)
		out = append(out, one)
	}
	return out
}

// found converts a route. No link of one that is not unicast counts, because nothing that follows it is forwarded there.
func found(r *netlink.Route) []uplinks.Route {
	if r.Type == unix.RTN_UNICAST {
		return fromRoute(r)
	}
	return []uplinks.Route{{Table: r.Table, Dst: destination(r), Metric: r.Priority, Protocol: int(r.Protocol)}}
}

// destination of a route, which the library may leave out where it is everything.
func destination(r *netlink.Route) netip.Prefix {
	if r.Dst != nil {
		return toPrefix(r.Dst)
	}
	return everything(r.Family)
}

func everything(family int) netip.Prefix {
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func toPrefix(n *net.IPNet) netip.Prefix {
	a, ok := toAddr(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toIP(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}
