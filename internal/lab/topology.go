package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Device names of the laboratory.
const (
	DeviceLAN      = "lan0" // the gateway's port to the LAN
	DeviceHost     = "eth0" // a host's only port
	DeviceCustomer = "cust" // a provider's port to its customer
	DeviceBackbone = "up"   // a provider's port to the Internet
)

// Limits of Options.
const (
	MaxUplinks  = 32
	MaxLANHosts = 200
)

// Addresses of the laboratory. Servers and probe targets belong to the Internet namespace and answer by every uplink.
var (
	GatewayLANAddr = netip.MustParseAddr("10.0.0.1")
	InnerHostAddr  = netip.MustParseAddr("10.9.0.2")
	ServerAddrs    = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	ProbeTargets   = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9")}
)

// Options say what Build builds; the zero value is one LAN host and two ordinary uplinks.
type Options struct {
	Uplinks     []UplinkOptions // nil for two without limits
	LANHosts    int             // 0 for one
	InnerRouter bool            // a router on the LAN with a host of its own behind it
	RPFilter    int             // net.ipv4.conf.*.rp_filter of the gateway
	Offloads    *Offloads       // of every veth on the path; nil for the kernel's defaults
	IPv6        bool            // beside IPv4, but for what is behind an inner router
}

// UplinkOptions describe one uplink.
type UplinkOptions struct {
	Down, Up   uint64        // capacity in bits per second, 0 for unlimited
	Queue      time.Duration // of a limited direction, 0 for 50 ms
	MTU        int           // bytes, 0 for 1500
	HeaderLess bool          // a TUN pair instead of Ethernet, as PPP and WWAN look
	Twin       int           // number of the uplink whose subnet and gateway address this one has too; 0 for its own
}

// Host is an end system.
type Host struct {
	*Namespace
	Addr   netip.Addr
	AddrV6 netip.Addr // with Options.IPv6
}

// Topology is LAN hosts – gateway – providers – Internet. The gateway does not forward until somebody switches that on;
// its main table has a default route by each uplink, metrics 100, 101, ….
type Topology struct {
	Gateway   *Namespace
	Hosts     []*Host // on the LAN: 10.0.0.2, 10.0.0.3, …
	Inner     *Namespace
	InnerHost *Host // behind Inner, nil without Options.InnerRouter
	Uplinks   []*Uplink
	Internet  *Namespace

	options Options
	all     []*Namespace
	links   []*Link
}

// Build makes a topology; Close takes it down.
func Build(o Options) (*Topology, error) {
	if o.Uplinks == nil {
		o.Uplinks = make([]UplinkOptions, 2)
	}
	o.LANHosts = max(o.LANHosts, 1)
	if len(o.Uplinks) > MaxUplinks || o.LANHosts > MaxLANHosts {
		return nil, fmt.Errorf("lab: at most %d uplinks and %d LAN hosts", MaxUplinks, MaxLANHosts)
	}
	t := &Topology{options: o}
	if err := t.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), t.Close())
	}
	return t, nil
}

func (t *Topology) build() (err error) {
	if t.Gateway, err = t.router("gw", t.options.RPFilter, false); err != nil {
		return err
	}
	if t.Internet, err = t.router("inet", 0, true); err != nil {
		return err
	}
	if err := t.addServerAddresses(); err != nil {
		return err
	}
	if err := t.buildLAN(); err != nil {
		return err
	}
	for i, o := range t.options.Uplinks {
		if err := t.addUplink(i+1, o); err != nil {
			return fmt.Errorf("uplink %d: %w", i+1, err)
		}
	}
	if t.options.IPv6 {
		return t.addIPv6()
	}
	return nil
}

// Close removes everything.
func (t *Topology) Close() error {
	var errs []error
	for _, l := range t.links {
		errs = append(errs, l.Unplug())
	}
	for _, n := range t.all {
		errs = append(errs, n.Close())
	}
	t.links, t.all = nil, nil
	return errors.Join(errs...)
}

// Masquerade lets the kernel alone do the gateway's work (forwarding and masquerading), for comparison with it.
func (t *Topology) Masquerade() error {
	var devices []string
	for _, u := range t.Uplinks {
		devices = append(devices, u.Device)
	}
	return errors.Join(t.Gateway.Sysctl("net/ipv4/ip_forward", "1"), t.Gateway.Masquerade(devices...))
}

func (t *Topology) namespace(name string) (*Namespace, error) {
	n, err := New(name)
	if err == nil {
		t.all = append(t.all, n)
	}
	return n, err
}

// router makes a namespace with known reverse-path filters. Its ICMP is not rate-limited: tests count the errors.
func (t *Topology) router(name string, rpFilter int, forward bool) (*Namespace, error) {
	n, err := t.namespace(name)
	if err != nil {
		return nil, err
	}
	filter := strconv.Itoa(rpFilter)
	return n, errors.Join(
		n.Sysctl("net/ipv4/ip_forward", strconv.Itoa(int(boolWord(forward)))),
		n.Sysctl("net/ipv4/conf/all/rp_filter", filter),
		n.Sysctl("net/ipv4/conf/default/rp_filter", filter),
		n.Sysctl("net/ipv4/icmp_ratelimit", "0"),
	)
}

func (t *Topology) addServerAddresses() error {
	for _, a := range append(append([]netip.Addr(nil), ServerAddrs...), ProbeTargets...) {
		if err := t.Internet.addAddress("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

// connect makes a veth pair that Close removes.
func (t *Topology) connect(near, far End) (*Link, error) {
	l, err := Connect(near, far, 0)
	if err != nil {
		return nil, err
	}
	t.links = append(t.links, l)
	if t.options.Offloads != nil {
		err = l.SetOffloads(*t.options.Offloads)
	}
	return l, err
}

func (n *Namespace) addAddress(device string, p netip.Prefix) error {
	link, err := n.link(device)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // else no socket could use it at once
	}
	if err := n.handle.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("namespace %s: add %s to %s: %w", n.name, p, device, err)
	}
	return nil
}

// defaultRoute is the destination of a default route.
var defaultRoute = netip.MustParsePrefix("0.0.0.0/0")

// addRoute adds or replaces a route of table main; without a gateway the destination is on the link.
func (n *Namespace) addRoute(dst netip.Prefix, via netip.Addr, device string, metric int) error {
	r := netlink.Route{Dst: ipNet(dst), Priority: metric}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	if device != "" {
		index, err := n.Index(device)
		if err != nil {
			return err
		}
		r.LinkIndex = index
	}
	if !via.IsValid() {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := n.handle.RouteReplace(&r); err != nil {
		return fmt.Errorf("namespace %s: add route %s via %s %s: %w", n.name, dst, via, device, err)
	}
	return nil
}
