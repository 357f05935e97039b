package rtnl

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// bound is the longest a test waits for an event.
const bound = 10 * time.Second

// world is a host's namespace with a Kernel in it, and one for the ISPs.
type world struct {
	t          *testing.T
	host, isps *lab.Namespace
	h          *netlink.Handle // of the host
	k          *Kernel
	wires      map[string]*lab.Link // by the host's device
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, host: labtest.Namespace(t, "host"), isps: labtest.Namespace(t, "isps"), wires: map[string]*lab.Link{}}
	w.h = w.host.Handle()
	w.must(w.host.Do(func() (err error) { w.k, err = Open(); return err }))
	t.Cleanup(w.k.Close)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// veth makes an Ethernet uplink with its far end in the ISPs' namespace. It returns its index.
func (w *world) veth(name, address, gateway string) int {
	w.t.Helper()
	near := lab.End{NS: w.host, Device: name, Prefix: prefix(address)}
	wire, err := lab.Connect(near, lab.End{NS: w.isps, Device: name, Prefix: prefix(gateway)}, 0)
	w.must(err)
	w.wires[name] = wire
	return w.link(name).Attrs().Index
}

// prefix is an address of a /24, or none.
func prefix(address string) netip.Prefix {
	if address == "" {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(netip.MustParseAddr(address), 24)
}

func parse(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (w *world) link(name string) netlink.Link {
	w.t.Helper()
	link, err := w.h.LinkByName(name)
	w.must(err)
	return link
}

// tun makes a TUN (header-less) or TAP device; the returned file keeps its carrier up and the device alive.
func (w *world) tun(name, address string, mode uint16) *os.File {
	w.t.Helper()
	ifr, err := unix.NewIfreq(name)
	w.must(err)
	ifr.SetUint16(mode | unix.IFF_NO_PI)
	var f *os.File
	w.must(w.host.Do(func() (err error) { f, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0); return err }))
	w.t.Cleanup(func() { _ = f.Close() })
	w.must(unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, ifr))
	w.must(w.h.AddrAdd(w.link(name), parse(address)))
	w.must(w.h.LinkSetUp(w.link(name)))
	return f
}

// defaultVia adds a default route as a DHCP client would.
func (w *world) defaultVia(name, gateway string, metric int) *netlink.Route {
	w.t.Helper()
	r := &netlink.Route{Dst: defaultNet(), LinkIndex: w.link(name).Attrs().Index, Priority: metric,
		Protocol: unix.RTPROT_DHCP, AdvMSS: 1400}
	if gateway == "" {
		r.Scope = unix.RT_SCOPE_LINK
	} else {
		r.Gw = net.ParseIP(gateway).To4()
	}
	w.must(w.h.RouteAdd(r))
	return r
}

func defaultNet() *net.IPNet { return &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)} }

func (w *world) read() uplinks.Facts {
	w.t.Helper()
	f, err := w.k.Read()
	w.must(err)
	return f
}

// watch starts a watcher that ends with the test.
func (w *world) watch() <-chan struct{} { return w.run(w.newWatcher()) }

func (w *world) newWatcher() (watcher *Watcher) {
	w.t.Helper()
	w.must(w.host.Do(func() (err error) { watcher, err = NewWatcher(slog.New(slog.DiscardHandler)); return err }))
	return watcher
}

// run runs a watcher until the test ends.
func (w *world) run(watcher *Watcher) <-chan struct{} {
	ctx, cancel := context.WithCancel(context.Background())
	notify, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- watcher.Run(ctx, notify) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("watcher: %v", err)
		}
	})
	return notify
}

// await re-reads at each notification until ok.
func (w *world) await(notify <-chan struct{}, what string, ok func(uplinks.Facts) bool) uplinks.Facts {
	w.t.Helper()
	timeout := time.After(bound)
	for {
		if f := w.read(); ok(f) {
			return f
		}
		select {
		case <-notify:
		case <-timeout:
			w.t.Fatalf("no notification brought: %s", what)
		}
	}
}

// objects lists all rules and routes in full, to compare states.
func (w *world) objects() []string {
	w.t.Helper()
	have := func(family int) ([]netlink.Rule, []netlink.Route) {
		rules, err := w.h.RuleList(family)
		w.must(err)
		routes, err := w.k.routes(family, unix.RT_TABLE_UNSPEC)
		w.must(err)
		return rules, routes
	}
	rules, routes := have(unix.AF_INET)
	rules6, routes6 := have(unix.AF_INET6)
	routes6 = slices.DeleteFunc(routes6, func(r netlink.Route) bool { return r.Protocol == unix.RTPROT_KERNEL }) // they come with time
	rules, routes = append(rules, rules6...), append(routes, routes6...)
	var out []string
	type plainRule netlink.Rule // without the String method, which leaves attributes out
	type plainRoute netlink.Route
	for _, r := range rules {
		out = append(out, fmt.Sprintf("%+v", plainRule(r)))
	}
	for _, r := range routes {
		clearState(&r)
		out = append(out, fmt.Sprintf("%+v", plainRoute(r)))
	}
	return out
}

func (w *world) sameObjects(before []string) {
	w.t.Helper()
	after := w.objects()
	for _, o := range before {
		if !slices.Contains(after, o) {
			w.t.Errorf("missing: %s", o)
		}
	}
	for _, o := range after {
		if !slices.Contains(before, o) {
			w.t.Errorf("too much: %s", o)
		}
	}
}

func findLink(f uplinks.Facts, name string) (uplinks.Link, bool) {
	i := slices.IndexFunc(f.Links, func(l uplinks.Link) bool { return l.Name == name })
	if i < 0 {
		return uplinks.Link{}, false
	}
	return f.Links[i], true
}

func hasMAC(f uplinks.Facts, index int, addr netip.Addr) bool {
	return slices.ContainsFunc(f.Neighbours, func(n uplinks.Neighbour) bool {
		return n.Index == index && n.Addr == addr && n.MAC != [6]byte{}
	})
}
