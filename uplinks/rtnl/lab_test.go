package rtnl

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// bound is the longest a test waits for an event.
const bound = 10 * time.Second

// lab is a fresh host namespace, which the calling thread is in, and one for the ISPs.
type lab struct {
	t     *testing.T
	k     *Kernel
	h     *netlink.Handle // host
	isp   *netlink.Handle
	ispNS netns.NsHandle
}

// inLab runs f on a thread of its own that is thrown away with its namespaces.
func inLab(t *testing.T, f func(l *lab)) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root, and CI must not skip")
		}
		t.Skip("network namespaces need root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if l := newLab(t); l != nil {
			defer l.close()
			f(l)
		}
	}()
	<-done
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t}
	var err error
	l.ispNS, err = netns.New()
	l.must(err)
	_, err = netns.New()
	l.must(err)
	l.isp, err = netlink.NewHandleAt(l.ispNS, unix.NETLINK_ROUTE)
	l.must(err)
	l.h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	l.must(err)
	l.k, err = Open()
	l.must(err)
	for _, h := range []*netlink.Handle{l.h, l.isp} {
		lo, err := h.LinkByName("lo")
		l.must(err)
		l.must(h.LinkSetUp(lo))
	}
	return l
}

func (l *lab) close() {
	l.k.Close()
	l.h.Close()
	l.isp.Close()
	_ = l.ispNS.Close()
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// veth makes an Ethernet uplink with its far end, named isp-name, in the ISPs' namespace. It returns its index.
func (l *lab) veth(name, address, gateway string) int {
	l.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l.must(l.h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "isp-" + name, PeerNamespace: netlink.NsFd(l.ispNS)}))
	peer, err := l.isp.LinkByName("isp-" + name)
	l.must(err)
	l.must(l.isp.LinkSetUp(peer))
	if gateway != "" {
		l.must(l.isp.AddrAdd(peer, parse(gateway+"/24")))
	}
	l.must(l.h.LinkSetUp(l.link(name)))
	if address != "" {
		l.must(l.h.AddrAdd(l.link(name), parse(address)))
	}
	return l.link(name).Attrs().Index
}

func parse(s string) *netlink.Addr {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (l *lab) link(name string) netlink.Link {
	l.t.Helper()
	link, err := l.h.LinkByName(name)
	l.must(err)
	return link
}

// tun makes a TUN (header-less) or TAP device; the returned file keeps its carrier up and the device alive.
func (l *lab) tun(name, address string, mode uint16) *os.File {
	l.t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	l.must(err)
	l.t.Cleanup(func() { _ = f.Close() })
	ifr, err := unix.NewIfreq(name)
	l.must(err)
	ifr.SetUint16(mode | unix.IFF_NO_PI)
	l.must(unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, ifr))
	l.must(l.h.AddrAdd(l.link(name), parse(address)))
	l.must(l.h.LinkSetUp(l.link(name)))
	return f
}

// defaultVia adds a default route as a DHCP client would.
func (l *lab) defaultVia(name, gateway string, metric int) *netlink.Route {
	l.t.Helper()
	r := &netlink.Route{Dst: defaultNet(), LinkIndex: l.link(name).Attrs().Index, Priority: metric,
		Protocol: unix.RTPROT_DHCP, AdvMSS: 1400}
	if gateway == "" {
		r.Scope = unix.RT_SCOPE_LINK
	} else {
		r.Gw = net.ParseIP(gateway).To4()
	}
	l.must(l.h.RouteAdd(r))
	return r
}

func defaultNet() *net.IPNet { return &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)} }

func (l *lab) read() uplinks.Facts {
	l.t.Helper()
	f, err := l.k.Read()
	l.must(err)
	return f
}

// watch starts a watcher that ends with the test.
func (l *lab) watch() <-chan struct{} {
	l.t.Helper()
	w, err := NewWatcher(slog.New(slog.DiscardHandler))
	l.must(err)
	return l.run(w)
}

// run runs w until the test ends.
func (l *lab) run(w *Watcher) <-chan struct{} {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	notify, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- w.Run(ctx, notify) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("watcher: %v", err)
		}
	})
	return notify
}

// await re-reads at each notification until ok.
func (l *lab) await(notify <-chan struct{}, what string, ok func(uplinks.Facts) bool) uplinks.Facts {
	l.t.Helper()
	timeout := time.After(bound)
	for {
		if f := l.read(); ok(f) {
			return f
		}
		select {
		case <-notify:
		case <-timeout:
			l.t.Fatalf("no notification brought: %s", what)
		}
	}
}

// objects lists all rules and routes in full, to compare states.
func (l *lab) objects() []string {
	l.t.Helper()
	rules, err := l.h.RuleList(unix.AF_INET)
	l.must(err)
	routes, err := l.k.routes(unix.RT_TABLE_UNSPEC)
	l.must(err)
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

func (l *lab) sameObjects(before []string) {
	l.t.Helper()
	after := l.objects()
	for _, o := range before {
		if !slices.Contains(after, o) {
			l.t.Errorf("missing: %s", o)
		}
	}
	for _, o := range after {
		if !slices.Contains(before, o) {
			l.t.Errorf("too much: %s", o)
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
