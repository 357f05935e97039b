package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// baseMetric is the metric of the first uplink's default route in the gateway.
const baseMetric = 100

// Uplink is one way from the gateway to the Internet: a device of the gateway, the provider behind it, and the provider's
// link to the Internet. The provider drops what its customer sends with foreign sources (BCP 38).
type Uplink struct {
	Number int    // from 1
	Device string // in the gateway: wan1, wan2, …
	ISP    *Namespace
	Link   *Link // gateway – provider

	gateway, internet *Namespace
	backbone          *Link // provider – Internet
	options           UplinkOptions
	offloads          *Offloads
}

// Addr is the gateway's own address on the uplink.
func (u *Uplink) Addr() netip.Addr { return u.Link.Near.Prefix.Addr() }

// NextHop is the provider's address on the uplink.
func (u *Uplink) NextHop() netip.Addr { return u.Link.Far.Prefix.Addr() }

// Metric is the metric of the uplink's default route in the gateway.
func (u *Uplink) Metric() int { return baseMetric + u.Number - 1 }

func (t *Topology) addUplink(number int, o UplinkOptions) error {
	isp, err := t.router(fmt.Sprintf("isp%d", number), 0, true)
	if err != nil {
		return err
	}
	u := &Uplink{Number: number, Device: fmt.Sprintf("wan%d", number), ISP: isp,
		gateway: t.Gateway, internet: t.Internet, options: o, offloads: t.options.Offloads}
	t.Uplinks = append(t.Uplinks, u)
	if err := u.connectBackbone(t); err != nil {
		return err
	}
	customer, provider := customerPrefixes(number, o.Twin)
	near := End{NS: u.gateway, Device: u.Device, Prefix: customer, MAC: portMAC(number, 2)}
	far := End{NS: isp, Device: DeviceCustomer, Prefix: provider, MAC: portMAC(number, 1)}
	plug := Connect
	if o.HeaderLess {
		near.MAC, far.MAC, plug = nil, nil, ConnectTUN
	}
	if u.Link, err = plug(near, far, o.MTU); err != nil {
		return err
	}
	t.links = append(t.links, u.Link)
	return u.configure()
}

func (u *Uplink) connectBackbone(t *Topology) (err error) {
	base := byte(4 * u.Number)
	provider := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, base + 1}), 30)
	internet := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, base + 2}), 30)
	u.backbone, err = t.connect(End{NS: u.ISP, Device: DeviceBackbone, Prefix: provider},
		End{NS: t.Internet, Device: u.ISP.name, Prefix: internet})
	if err != nil {
		return err
	}
	return u.ISP.addRoute(defaultRoute, internet.Addr(), DeviceBackbone, 0)
}

// customerPrefixes are the gateway's and the provider's address of an uplink: 100.64.n.2 and 100.64.n.1. A twin has the
// other's provider address, and one of its own in that subnet: two lines with the same model of modem.
func customerPrefixes(number, twin int) (customer, provider netip.Prefix) {
	subnet, host := byte(number), byte(2)
	if twin > 0 {
		subnet, host = byte(twin), byte(100+number)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, subnet, host}), 24),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, subnet, 1}), 24)
}

func portMAC(number int, host byte) net.HardwareAddr {
	return net.HardwareAddr{2, 0, 100, 64, byte(number), host}
}

// configure sets what a new device lost: offloads, capacity, filter and routes.
func (u *Uplink) configure() error {
	if err := u.ISP.Sysctl("net/ipv4/conf/"+DeviceCustomer+"/rp_filter", "1"); err != nil {
		return err
	}
	if u.offloads != nil && !u.options.HeaderLess {
		if err := u.Link.SetOffloads(*u.offloads); err != nil {
			return err
		}
	}
	if err := u.SetCapacity(u.options.Down, u.options.Up); err != nil {
		return err
	}
	return u.AddRoutes()
}

// SetCapacity limits the uplink to down and up bits per second, both at the provider; 0 is unlimited. Traffic to the
// provider's own addresses is not limited upwards.
func (u *Uplink) SetCapacity(down, up uint64) error {
	u.options.Down, u.options.Up = down, up
	return errors.Join(u.ISP.Shape(DeviceCustomer, down, u.options.Queue), u.ISP.Shape(DeviceBackbone, up, u.options.Queue))
}

// AddRoutes sets the gateway's default route by the uplink and the Internet's route back, as a DHCP client and a provider
// would; it is only needed after the device or its address was changed by hand.
func (u *Uplink) AddRoutes() error {
	via := u.NextHop()
	if u.options.HeaderLess {
		via = netip.Addr{}
	}
	if err := u.gateway.addRoute(defaultRoute, via, u.Device, u.Metric()); err != nil {
		return err
	}
	back := u.Link.Near.Prefix.Masked()
	if u.options.Twin > 0 {
		back = netip.PrefixFrom(u.Addr(), u.Addr().BitLen())
	}
	return u.internet.addRoute(back, u.backbone.Near.Prefix.Addr(), u.ISP.name, 0)
}

// RemoveDefault takes the gateway's default route by the uplink away, as NetworkManager does with a failed one.
func (u *Uplink) RemoveDefault() error {
	index, err := u.gateway.Index(u.Device)
	if err != nil {
		return err
	}
	// A scope of "nowhere" matches routes of any scope.
	r := netlink.Route{Dst: ipNet(defaultRoute), LinkIndex: index, Priority: u.Metric(), Scope: netlink.SCOPE_NOWHERE}
	if err := u.gateway.handle.RouteDel(&r); err != nil {
		return fmt.Errorf("remove the default route by %s: %w", u.Device, err)
	}
	return nil
}

// Unplug removes the uplink's device from the gateway, as when a USB modem is pulled.
func (u *Uplink) Unplug() error { return u.Link.Unplug() }

// Replug undoes Unplug: the device comes back with another interface index.
func (u *Uplink) Replug() error {
	if err := u.Link.Replug(); err != nil {
		return err
	}
	return u.configure()
}

// Renumber gives the uplink new addresses, the customer's and the provider's, and the routes that belong to them.
func (u *Uplink) Renumber(customer, provider netip.Prefix) error {
	if err := u.Link.Renumber(customer, provider); err != nil {
		return err
	}
	return u.AddRoutes()
}

// SetFaults replaces what the provider loses of its customer's traffic; none heals it.
func (u *Uplink) SetFaults(faults ...Fault) error { return u.ISP.SetFaults(faults...) }

// AddService gives the provider an address somewhere in its own network, which others reach by the Internet.
func (u *Uplink) AddService(a netip.Addr) error {
	p := netip.PrefixFrom(a, a.BitLen())
	return errors.Join(u.ISP.addAddress("lo", p), u.internet.addRoute(p, u.backbone.Near.Prefix.Addr(), u.ISP.name, 0))
}

// Silence makes the provider deaf on the customer's side, ARP included, while the carrier stays.
func (u *Uplink) Silence(on bool) error { return u.ISP.Silence(DeviceCustomer, on) }
