package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses of the laboratory's IPv6. Servers and probe targets answer by every uplink, as those of IPv4.
var (
	GatewayLANAddrV6 = netip.MustParseAddr("fd00:10::1")
	ServerAddrsV6    = []netip.Addr{netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("2001:db8:f::2")}
	ProbeTargetsV6   = []netip.Addr{
		netip.MustParseAddr("2606:4700:4700::1111"), netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2620:fe::fe"),
	}

	defaultRouteV6 = netip.MustParsePrefix("::/0")
	routerV6       = netip.MustParseAddr("fe80::1") // of every provider, towards its customer
)

// metricV6 is that of default routes which routers advertise.
const metricV6 = 1024

// AddrV6 is the gateway's own IPv6 address on the uplink.
func (u *Uplink) AddrV6() netip.Addr { return customerV6(u.Number, 2).Addr() }

// NextHopV6 is the provider's IPv6 address on the uplink.
func (u *Uplink) NextHopV6() netip.Addr { return routerV6 }

// customerV6 is an address of an uplink's subnet.
func customerV6(number int, host byte) netip.Prefix { return subnetV6(byte(number), host) }

// backboneV6 is an address between a provider and the Internet.
func backboneV6(number int, host byte) netip.Prefix { return subnetV6(0x80|byte(number), host) }

func subnetV6(subnet, host byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 5: subnet, 15: host}), 64)
}

// addIPv6 gives the whole topology IPv6 beside IPv4: each uplink has a public prefix of its own, the LAN a local one.
func (t *Topology) addIPv6() error {
	var errs []error
	for _, a := range append(append([]netip.Addr(nil), ServerAddrsV6...), ProbeTargetsV6...) {
		errs = append(errs, t.Internet.addAddress("lo", netip.PrefixFrom(a, a.BitLen())))
	}
	errs = append(errs, t.addLANIPv6())
	for _, u := range t.Uplinks {
		errs = append(errs, u.addIPv6())
	}
	for _, n := range t.all {
		errs = append(errs, n.awaitLocalV6())
	}
	return errors.Join(errs...)
}

// awaitLocalV6 waits until packets to all IPv6 addresses of the namespace are taken in: the kernel adds the routes a moment after
// the addresses.
func (n *Namespace) awaitLocalV6() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		addresses, err := n.handle.AddrList(nil, unix.AF_INET6)
		if err != nil {
			return fmt.Errorf("namespace %s: list addresses: %w", n.name, err)
		}
		local := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
		routes, err := n.handle.RouteListFiltered(unix.AF_INET6, local, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return fmt.Errorf("namespace %s: list local routes: %w", n.name, err)
		}
		missing := slices.IndexFunc(addresses, func(a netlink.Addr) bool {
			return !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(a.IP) })
		})
		if missing < 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("namespace %s: no local route to %s", n.name, addresses[missing].IP)
		}
	}
}

func (t *Topology) addLANIPv6() error {
	errs := []error{t.Gateway.addAddress(DeviceLAN, netip.PrefixFrom(GatewayLANAddrV6, 64))}
	addr := GatewayLANAddrV6
	for _, h := range t.Hosts {
		addr = addr.Next()
		h.AddrV6 = addr
		errs = append(errs, h.addAddress(DeviceHost, netip.PrefixFrom(addr, 64)),
			h.addRoute(defaultRouteV6, GatewayLANAddrV6, DeviceHost, 0))
	}
	return errors.Join(errs...)
}

// addIPv6 gives both sides of the provider their addresses and routes.
func (u *Uplink) addIPv6() error {
	internet, provider := backboneV6(u.Number, 2), backboneV6(u.Number, 1)
	return errors.Join(
		u.ISP.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		u.ISP.Sysctl("net/ipv6/icmp/ratelimit", "0"),
		u.ISP.addAddress(DeviceCustomer, netip.PrefixFrom(routerV6, 64)),
		u.ISP.addAddress(DeviceCustomer, customerV6(u.Number, 1)),
		u.ISP.addAddress(DeviceBackbone, provider),
		u.internet.addAddress(u.ISP.name, internet),
		u.ISP.addRoute(defaultRouteV6, internet.Addr(), DeviceBackbone, 0),
		u.internet.addRoute(customerV6(u.Number, 0), provider.Addr(), u.ISP.name, 0),
		u.ISP.dropForeignSources(DeviceCustomer),
		u.AddRouterV6(),
	)
}

// dropForeignSources is what rp_filter does for IPv4 alone: nothing is forwarded that came in by a device and whose source is not
// behind it.
func (n *Namespace) dropForeignSources(device string) error {
	table := &nftables.Table{Name: "lab_sources", Family: nftables.TableFamilyIPv6}
	return n.replaceTable(table, false, func(c *nftables.Conn, t *nftables.Table) {
		chain := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		foreign := append(onDevice(expr.MetaKeyIIFNAME, device),
			&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append(foreign, drop()...)})
	})
}

// AddRouterV6 gives the gateway what the provider's router advertises: an address and a default route.
func (u *Uplink) AddRouterV6() error {
	if err := u.gateway.addAddress(u.Device, customerV6(u.Number, 2)); err != nil {
		return err
	}
	index, err := u.gateway.Index(u.Device)
	if err != nil {
		return err
	}
	r := netlink.Route{Family: unix.AF_INET6, Dst: ipNet(defaultRouteV6), LinkIndex: index, Priority: metricV6, Protocol: unix.RTPROT_RA}
	if !u.options.HeaderLess {
		r.Gw = routerV6.AsSlice()
	}
	if err := u.gateway.handle.RouteAppend(&r); err != nil {
		return fmt.Errorf("namespace %s: add the default route by %s: %w", u.gateway.name, u.Device, err)
	}
	return nil
}
