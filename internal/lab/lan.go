package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// switchName is the name of the bridge that joins the LAN when there is more than one host.
const switchName = "switch"

// innerRouterAddr is the inner router's address on the LAN, innerPrefix its network behind.
var (
	innerRouterAddr = netip.MustParseAddr("10.0.0.254")
	innerLANAddr    = netip.MustParseAddr("10.9.0.1")
	innerPrefix     = netip.MustParsePrefix("10.9.0.0/24")
)

// buildLAN joins gateway and hosts: one host by a cable, more by a switch of their own namespace.
func (t *Topology) buildLAN() (err error) {
	gateway := End{NS: t.Gateway, Device: DeviceLAN, Prefix: lanPrefix(GatewayLANAddr), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}}
	attach := func(e End) error {
		_, err := t.connect(gateway, e)
		return err
	}
	if t.options.LANHosts > 1 || t.options.InnerRouter {
		if attach, err = t.addSwitch(); err != nil {
			return err
		}
		if err := attach(gateway); err != nil {
			return err
		}
	}
	addr := GatewayLANAddr
	for i := range t.options.LANHosts {
		addr = addr.Next()
		if err := t.addHost(fmt.Sprintf("lan%d", i+1), addr, attach); err != nil {
			return err
		}
	}
	if t.options.InnerRouter {
		return t.addInnerRouter(attach)
	}
	return nil
}

func lanPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }

func (t *Topology) addHost(name string, addr netip.Addr, attach func(End) error) error {
	n, err := t.namespace(name)
	if err != nil {
		return err
	}
	if err := attach(End{NS: n, Device: DeviceHost, Prefix: lanPrefix(addr)}); err != nil {
		return err
	}
	t.Hosts = append(t.Hosts, &Host{Namespace: n, Addr: addr})
	return n.addRoute(defaultRoute, GatewayLANAddr, "", 0)
}

// addSwitch makes a namespace with a bridge and returns what plugs an end into it.
func (t *Topology) addSwitch() (attach func(End) error, err error) {
	n, err := t.namespace(switchName)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = switchName
	if err := n.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("add bridge: %w", err)
	}
	bridge, err := n.link(switchName)
	if err != nil {
		return nil, err
	}
	ports := 0
	return func(e End) error {
		ports++
		port := fmt.Sprintf("port%d", ports)
		if _, err := t.connect(e, End{NS: n, Device: port}); err != nil {
			return err
		}
		link, err := n.link(port)
		if err != nil {
			return err
		}
		if err := n.handle.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("add %s to the bridge: %w", port, err)
		}
		return nil
	}, n.setUp(switchName, true)
}

// addInnerRouter puts a router on the LAN, with one host behind it, and the route to there into the gateway.
func (t *Topology) addInnerRouter(attach func(End) error) (err error) {
	if t.Inner, err = t.router("inner", 0, true); err != nil {
		return err
	}
	if err := attach(End{NS: t.Inner, Device: DeviceHost, Prefix: lanPrefix(innerRouterAddr)}); err != nil {
		return err
	}
	host, err := t.namespace("innerhost")
	if err != nil {
		return err
	}
	t.InnerHost = &Host{Namespace: host, Addr: InnerHostAddr}
	_, err = t.connect(End{NS: t.Inner, Device: DeviceLAN, Prefix: lanPrefix(innerLANAddr)},
		End{NS: host, Device: DeviceHost, Prefix: lanPrefix(InnerHostAddr)})
	if err != nil {
		return err
	}
	if err := t.Inner.addRoute(defaultRoute, GatewayLANAddr, "", 0); err != nil {
		return err
	}
	if err := host.addRoute(defaultRoute, innerLANAddr, "", 0); err != nil {
		return err
	}
	return t.Gateway.addRoute(innerPrefix, innerRouterAddr, DeviceLAN, 0)
}
