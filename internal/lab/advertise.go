package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// AdvertisedPrefix is a prefix of which hosts make themselves an address (RFC 4861 §4.6.2).
type AdvertisedPrefix struct {
	netip.Prefix
	Preferred, Valid time.Duration
}

// Advertise has the provider's router tell its customer, once, that it is a default router for so long, and these prefixes
// (RFC 4861 §4.2). A lifetime of 0 takes back what was told before.
func (u *Uplink) Advertise(router time.Duration, prefixes ...AdvertisedPrefix) error {
	return u.ISP.advertise(DeviceCustomer, routerV6, router, prefixes)
}

// AdvertiseFrom is Advertise of another router on the link, with a link-local address of its own and the way to the Internet of the
// provider's.
func (u *Uplink) AdvertiseFrom(src netip.Addr, router time.Duration, prefixes ...AdvertisedPrefix) error {
	if err := u.ISP.addAddress(DeviceCustomer, netip.PrefixFrom(src, 64)); err != nil {
		return err
	}
	return u.ISP.advertise(DeviceCustomer, src, router, prefixes)
}

// AdvertiseOn has a host that is no router say on a device that it is one.
func (n *Namespace) AdvertiseOn(device string, router time.Duration) error {
	src := netip.MustParseAddr("fe80::bad")
	if err := n.addAddress(device, netip.PrefixFrom(src, 64)); err != nil {
		return err
	}
	return n.advertise(device, src, router, nil)
}

func (n *Namespace) advertise(device string, src netip.Addr, router time.Duration, prefixes []AdvertisedPrefix) error {
	message := &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: uint16(router / time.Second)}
	for _, p := range prefixes {
		message.Options = append(message.Options, p.option())
	}
	buf := gopacket.NewSerializeBuffer()
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterAdvertisement, 0)}
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, icmp, message); err != nil {
		return err
	}
	if err := n.sendToAllNodes(device, src, buf.Bytes()); err != nil {
		return fmt.Errorf("namespace %s: advertise a router: %w", n.name, err)
	}
	return nil
}

// option is the prefix information option: on link, and for addresses.
func (p AdvertisedPrefix) option() layers.ICMPv6Option {
	const onLink, autonomous = 0x80, 0x40
	data := []byte{byte(p.Bits()), onLink | autonomous}
	data = binary.BigEndian.AppendUint32(data, uint32(p.Valid/time.Second))
	data = binary.BigEndian.AppendUint32(data, uint32(p.Preferred/time.Second))
	data = append(append(data, 0, 0, 0, 0), p.Masked().Addr().AsSlice()...)
	return layers.ICMPv6Option{Type: layers.ICMPv6OptPrefixInfo, Data: data}
}

// sendToAllNodes sends an ICMPv6 message, which the kernel sums, to ff02::1 on a device, with a hop limit of 255.
func (n *Namespace) sendToAllNodes(device string, src netip.Addr, message []byte) error {
	index, err := n.Index(device)
	if err != nil {
		return err
	}
	conn, err := n.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	control := &ipv6.ControlMessage{HopLimit: 255, Src: src.AsSlice(), IfIndex: index}
	_, err = ipv6.NewPacketConn(conn).WriteTo(message, control, &net.IPAddr{IP: net.IPv6linklocalallnodes})
	return errors.Join(err, conn.Close())
}

// RemoveRouterV6 undoes AddRouterV6.
func (u *Uplink) RemoveRouterV6() error {
	link, err := u.gateway.link(u.Device)
	if err != nil {
		return err
	}
	// Without the gateway the routes by all uplinks would go.
	r := netlink.Route{
		Family: unix.AF_INET6, Dst: ipNet(defaultRouteV6), Gw: routerV6.AsSlice(), LinkIndex: link.Attrs().Index, Protocol: unix.RTPROT_RA,
	}
	err = errors.Join(u.gateway.handle.RouteDel(&r),
		u.gateway.handle.AddrDel(link, &netlink.Addr{IPNet: ipNet(customerV6(u.Number, 2))}))
	if err != nil {
		return fmt.Errorf("namespace %s: remove what the router of %s told: %w", u.gateway.name, u.Device, err)
	}
	return nil
}

// PrefixV6 is the prefix of the uplink's subnet.
func (u *Uplink) PrefixV6() netip.Prefix { return customerV6(u.Number, 0) }

// Delegate gives the provider a second prefix for its customer, which takes addresses of it when they are advertised.
func (u *Uplink) Delegate() (netip.Prefix, error) {
	p := subnetV6(0x40|byte(u.Number), 0)
	return p, errors.Join(
		u.ISP.addAddress(DeviceCustomer, netip.PrefixFrom(p.Addr().Next(), p.Bits())),
		u.internet.addRoute(p, backboneV6(u.Number, 1).Addr(), u.ISP.name, 0))
}
