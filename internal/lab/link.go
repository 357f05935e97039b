package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a Link: a device in a namespace.
type End struct {
	NS     *Namespace
	Device string
	Prefix netip.Prefix     // address and length; invalid for none
	MAC    net.HardwareAddr // nil for a random one
}

// Link is a cable between two namespaces. Its methods are not for concurrent use.
type Link struct {
	Near, Far End
	MTU       int // bytes of IP
	cable     cable
}

// cable is what a Link is made of: a veth pair, or two TUN devices joined by a copier.
type cable interface {
	plug(*Link) error
	unplug(*Link) error
	carrier(l *Link, on bool) error // at the near end
}

// defaultMTU is Ethernet's.
const defaultMTU = 1500

// Connect makes a veth pair between two ends and brings it up; an mtu of 0 means 1500.
func Connect(near, far End, mtu int) (*Link, error) { return connect(near, far, mtu, veth{}) }

// ConnectTUN makes two header-less point-to-point devices whose packets a copier in this process carries over. Both
// prefixes must be valid: each is the peer address of the other.
func ConnectTUN(near, far End, mtu int) (*Link, error) { return connect(near, far, mtu, &tunPair{}) }

func connect(near, far End, mtu int, c cable) (*Link, error) {
	if mtu == 0 {
		mtu = defaultMTU
	}
	l := &Link{Near: near, Far: far, MTU: mtu, cable: c}
	if err := l.Replug(); err != nil {
		return nil, errors.Join(err, c.unplug(l))
	}
	return l, nil
}

// Replug makes the devices (anew, with new interface indexes) and configures both ends.
func (l *Link) Replug() error {
	if err := l.cable.plug(l); err != nil {
		return fmt.Errorf("link %s: %w", l, err)
	}
	return l.both(func(e, other End) error {
		if err := e.setAddress(l.addr(e, other)); err != nil {
			return err
		}
		return e.NS.setUp(e.Device, true)
	})
}

// Unplug removes the devices of both ends, with their addresses and routes.
func (l *Link) Unplug() error { return l.cable.unplug(l) }

// Cut takes the carrier away from the near end while its device, addresses and routes stay; Mend gives it back.
func (l *Link) Cut() error { return l.cable.carrier(l, false) }

// Mend undoes Cut.
func (l *Link) Mend() error { return l.cable.carrier(l, true) }

// ErrCannotDelay is returned for a cable that the kernel alone is.
var ErrCannotDelay = errors.New("only a cable of TUN devices can delay packets")

// SetDelay has packets arrive so much later, in either direction; those under way are not concerned.
func (l *Link) SetDelay(d time.Duration) error {
	pair, ok := l.cable.(*tunPair)
	if !ok {
		return ErrCannotDelay
	}
	pair.delay.Store(int64(d))
	return nil
}

// Renumber replaces the addresses of both ends.
func (l *Link) Renumber(near, far netip.Prefix) error {
	l.Near.Prefix, l.Far.Prefix = near, far
	return l.both(func(e, other End) error { return e.setAddress(l.addr(e, other)) })
}

// SetMTU changes the MTU of both ends.
func (l *Link) SetMTU(mtu int) error {
	l.MTU = mtu
	return l.both(func(e, _ End) error {
		link, err := e.NS.link(e.Device)
		if err != nil {
			return err
		}
		return e.wrap(e.NS.handle.LinkSetMTU(link, mtu))
	})
}

// SetOffloads changes the offloads of both ends.
func (l *Link) SetOffloads(o Offloads) error {
	return l.both(func(e, _ End) error { return e.NS.SetOffloads(e.Device, o) })
}

// String names both ends.
func (l *Link) String() string {
	return l.Near.NS.name + ":" + l.Near.Device + "–" + l.Far.NS.name + ":" + l.Far.Device
}

func (l *Link) both(f func(e, other End) error) error {
	return errors.Join(f(l.Near, l.Far), f(l.Far, l.Near))
}

// addr is the address of e: on a point-to-point cable a host address with the other end as its peer.
func (l *Link) addr(e, other End) *netlink.Addr {
	if !e.Prefix.IsValid() {
		return nil
	}
	if _, p2p := l.cable.(*tunPair); p2p {
		host := netip.PrefixFrom(e.Prefix.Addr(), e.Prefix.Addr().BitLen())
		peer := netip.PrefixFrom(other.Prefix.Addr(), other.Prefix.Addr().BitLen())
		return &netlink.Addr{IPNet: ipNet(host), Peer: ipNet(peer)}
	}
	return &netlink.Addr{IPNet: ipNet(e.Prefix)}
}

// setAddress makes addr the only IPv4 address of the device; nil leaves none.
func (e End) setAddress(addr *netlink.Addr) error {
	link, err := e.NS.link(e.Device)
	if err != nil {
		return err
	}
	old, err := e.NS.handle.AddrList(link, unix.AF_INET)
	if err != nil {
		return e.wrap(err)
	}
	for i := range old {
		if err := e.NS.handle.AddrDel(link, &old[i]); err != nil {
			return e.wrap(err)
		}
	}
	if addr == nil {
		return nil
	}
	return e.wrap(e.NS.handle.AddrAdd(link, addr))
}

func (e End) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("namespace %s: device %s: %w", e.NS.name, e.Device, err)
}

// veth is a cable made of a virtual Ethernet pair.
type veth struct{}

func (veth) plug(l *Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = l.Near.Device, l.MTU, l.Near.MAC
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = l.Far.Device, l.Far.MAC
	pair.PeerNamespace, pair.PeerMTU = netlink.NsFd(l.Far.NS.FD()), uint32(l.MTU)
	return l.Near.wrap(l.Near.NS.handle.LinkAdd(pair))
}

func (veth) unplug(l *Link) error {
	link, err := l.Near.NS.link(l.Near.Device)
	if err != nil {
		return ignoreMissing(err)
	}
	return l.Near.wrap(l.Near.NS.handle.LinkDel(link))
}

// carrier uses that a veth has carrier only while its peer is up.
func (veth) carrier(l *Link, on bool) error { return l.Far.NS.setUp(l.Far.Device, on) }

func ignoreMissing(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
