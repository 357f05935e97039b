package lab_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const threadNamespace = "/proc/thread-self/ns/net"

func TestDoEntersAndLeaves(t *testing.T) {
	a, b := labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
	home := readlink(t)
	var inA, inB, backInA string
	labtest.Must(t, a.Do(func() error {
		inA = readlink(t)
		if err := b.Do(func() error { inB = readlink(t); return nil }); err != nil {
			return err
		}
		backInA = readlink(t)
		return nil
	}))
	if inA == home || inB == home || inA == inB || backInA != inA {
		t.Errorf("home %s, a %s, b %s, back in a %s", home, inA, inB, backInA)
	}
	if now := readlink(t); now != home {
		t.Errorf("thread ended in %s, want %s", now, home)
	}
}

func TestDoLeavesAfterPanicAndError(t *testing.T) {
	n := labtest.Namespace(t, "n")
	home := readlink(t)
	wrong := errors.New("wrong")
	if err := n.Do(func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = n.Do(func() error { panic("of f") })
	}()
	if now := readlink(t); now != home {
		t.Errorf("thread ended in %s, want %s", now, home)
	}
}

func TestCommandIsBornInside(t *testing.T) {
	n := labtest.Namespace(t, "n")
	var want string
	labtest.Must(t, n.Do(func() error { want = readlink(t); return nil }))
	out, err := n.Command(labtest.Context(t), "readlink", "/proc/self/ns/net").Output()
	labtest.Must(t, err)
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("child in %s, want %s", got, want)
	}
}

func TestSysctlStaysInside(t *testing.T) {
	a, b := labtest.Namespace(t, "a"), labtest.Namespace(t, "b")
	const path = "net/ipv4/ip_default_ttl"
	before, err := b.ReadSysctl(path)
	labtest.Must(t, err)
	labtest.Must(t, a.Sysctl(path, "37"))
	for n, want := range map[*lab.Namespace]string{a: "37", b: before} {
		if got, err := n.ReadSysctl(path); err != nil || got != want {
			t.Errorf("%s: %s=%q (%v), want %q", n.Name(), path, got, err, want)
		}
	}
}

func TestNamesAreRefused(t *testing.T) {
	n := labtest.Namespace(t, "n")
	if _, err := n.Dial(t.Context(), "tcp", "localhost:80"); !errors.Is(err, lab.ErrNotLiteral) {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	labtest.RequireRoot(t)
	labtest.Must(t, buildAndClose()) // the first run opens descriptors of the runtime's poller
	links, descriptors, names := machine(t)
	for range 3 {
		labtest.Must(t, buildAndClose())
	}
	linksAfter, descriptorsAfter, namesAfter := machine(t)
	if links != linksAfter || descriptors != descriptorsAfter || names != namesAfter {
		t.Errorf("links %s → %s, descriptors %d → %d, named namespaces %d → %d",
			links, linksAfter, descriptors, descriptorsAfter, names, namesAfter)
	}
}

func buildAndClose() error {
	topo, err := lab.Build(lab.Options{Uplinks: []lab.UplinkOptions{{HeaderLess: true}, {Down: 1e6}}, InnerRouter: true})
	if err != nil {
		return err
	}
	servers, err := lab.StartServers(topo.Internet)
	if err == nil {
		err = servers.Close()
	}
	return errors.Join(err, topo.Close())
}

// machine returns what a leak would change: the machine's own devices, our descriptors, named namespaces.
func machine(t *testing.T) (links string, descriptors, names int) {
	list, err := netlink.LinkList()
	labtest.Must(t, err)
	for _, l := range list {
		links += l.Attrs().Name + " "
	}
	fds, err := os.ReadDir("/proc/self/fd")
	labtest.Must(t, err)
	named, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return links, len(fds), len(named)
}

func TestSocketsKeepTheirNamespace(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	l, err := topo.Gateway.Listen("tcp4", ":9")
	labtest.Must(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	c, err := topo.Hosts[0].Dial(labtest.Context(t), "tcp4", net.JoinHostPort(lab.GatewayLANAddr.String(), "9"))
	labtest.Must(t, err)
	defer c.Close()
	if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != topo.Hosts[0].Addr.String() {
		t.Errorf("connected from %s", got)
	}
}

func readlink(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink(threadNamespace)
	labtest.Must(t, err)
	return s
}
