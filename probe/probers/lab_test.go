package probers

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tapgw/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an anonymous network namespace; it is gone with its last descriptor.
type node struct {
	t  *testing.T
	ns netns.NsHandle
	nl *netlink.Handle
}

// newNode makes a namespace on a thread that dies with the goroutine, so that the test's own is never touched.
func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	made := make(chan netns.NsHandle)
	go func() {
		defer close(made)
		runtime.LockOSThread()
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			return
		}
		if ns, err := netns.GetFromPath("/proc/thread-self/ns/net"); err == nil {
			made <- ns
		}
	}()
	ns, ok := <-made
	if !ok {
		t.Fatal("cannot make a network namespace")
	}
	nl, err := netlink.NewHandleAt(ns)
	must(t, err)
	t.Cleanup(func() { nl.Close(); _ = ns.Close() })
	n := &node{t: t, ns: ns, nl: nl}
	n.up("lo")
	n.sysctl("ipv4/ip_forward", "1")
	n.sysctl("ipv6/conf/default/disable_ipv6", "1") // so that interfaces are silent by themselves
	return n
}

// in runs f on a thread of the namespace that is thrown away afterwards.
func (n *node) in(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(n.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (n *node) sysctl(name, value string) {
	n.t.Helper()
	must(n.t, n.in(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }))
}

func (n *node) link(name string) netlink.Link {
	n.t.Helper()
	l, err := n.nl.LinkByName(name)
	must(n.t, err)
	return l
}

func (n *node) up(name string) { n.t.Helper(); must(n.t, n.nl.LinkSetUp(n.link(name))) }

func (n *node) address(name, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	must(n.t, err)
	must(n.t, n.nl.AddrAdd(n.link(name), addr))
}

func (n *node) route(dst, gateway, dev string, metric int) *netlink.Route {
	n.t.Helper()
	_, prefix, err := net.ParseCIDR(dst)
	must(n.t, err)
	r := &netlink.Route{Dst: prefix, Gw: net.ParseIP(gateway), LinkIndex: n.link(dev).Attrs().Index, Priority: metric}
	must(n.t, n.nl.RouteAdd(r))
	return r
}

// wire joins two nodes by a veth pair with an address at each end.
func wire(a *node, aName, aPrefix string, b *node, bName, bPrefix string) {
	a.t.Helper()
	veth := netlink.NewVeth(netlink.LinkAttrs{Name: aName})
	veth.PeerName, veth.PeerNamespace = bName, netlink.NsFd(b.ns)
	must(a.t, a.nl.LinkAdd(veth))
	a.up(aName)
	b.up(bName)
	a.address(aName, aPrefix)
	b.address(bName, bPrefix)
}

// listen accepts TCP connections until the test ends.
func (n *node) listen(addr string) {
	n.t.Helper()
	var l net.Listener
	must(n.t, n.in(func() (err error) { l, err = net.Listen("tcp4", addr); return err }))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	n.t.Cleanup(func() { _ = l.Close(); <-done })
}

// uplink is one uplink of a test host with its Set of probers, which works inside the host's namespace.
type uplink struct {
	Set
	host *node
	link probe.Link
}

func (n *node) uplink(dev, source, gateway string) *uplink {
	n.t.Helper()
	u := &uplink{host: n, link: probe.Link{
		Name: dev, Index: n.link(dev).Attrs().Index,
		Source: netip.MustParseAddr(source), Gateway: netip.MustParseAddr(gateway),
	}}
	n.t.Cleanup(func() { must(n.t, u.Close()) })
	return u
}

func (u *uplink) Probe(ctx context.Context, link probe.Link, t probe.Target) (rtt time.Duration, err error) {
	err = u.host.in(func() (err error) { rtt, err = u.Set.Probe(ctx, link, t); return err })
	return rtt, err
}

// ask probes target once, and gives up after the default timeout.
func (u *uplink) ask(target string) (time.Duration, error) {
	u.host.t.Helper()
	ctx, cancel := context.WithTimeout(u.host.t.Context(), probe.DefaultPlan().Timeout)
	defer cancel()
	return u.Probe(ctx, u.link, parse(u.host.t, target))
}

// run starts a Runner on u and returns its verdicts. The channel is drained by await.
func (u *uplink) run(plan probe.Plan) <-chan probe.Verdict {
	t := u.host.t
	t.Helper()
	r, err := probe.NewRunner(plan, u)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	verdicts := make(chan probe.Verdict)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, u.link, func(v probe.Verdict) {
			select {
			case verdicts <- v:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return verdicts
}

// await returns the first verdict that is known and has the wanted usability, and how long it took.
func await(t *testing.T, verdicts <-chan probe.Verdict, usable bool) (probe.Verdict, time.Duration) {
	t.Helper()
	began, limit := time.Now(), time.After(20*time.Second)
	for {
		select {
		case v := <-verdicts:
			if v.Known && v.Usable == usable {
				return v, time.Since(began)
			}
		case <-limit:
			t.Fatalf("no verdict with usable=%v within 20 s", usable)
		}
	}
}

func parse(t *testing.T, s string) probe.Target {
	t.Helper()
	target, err := probe.ParseTarget(s)
	must(t, err)
	return target
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sockets counts the lines of a socket table in /proc, without its heading.
func (n *node) sockets(table string) int {
	n.t.Helper()
	var text []byte
	must(n.t, n.in(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/" + table); return err }))
	return strings.Count(string(text), "\n") - 1
}
