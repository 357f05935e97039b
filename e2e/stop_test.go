package e2e

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestStopClosesConnections: what was connected through the TAP learns of the end at once and can connect anew, and
// connections from other addresses go on.
func TestStopClosesConnections(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	through := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	datagrams := w.dialFrom("udp4", netip.Addr{}, lab.PortUDPEcho)
	around := w.dialFrom("tcp4", w.Uplinks[0].Addr(), lab.PortTCPEcho) // plain routing takes this uplink
	for _, c := range []talker{through, around} {
		labtest.Must(t, c.talk())
	}
	if local := through.LocalAddr().(*net.TCPAddr).IP.String(); local != "198.18.73.1" {
		t.Fatalf("connected from %s, not through the TAP", local)
	}
	waiting := make(chan error, 2)
	for _, c := range []net.Conn{through, datagrams} {
		labtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
		go func() { _, err := c.Read(make([]byte, 1)); waiting <- err }()
	}
	w.stop()
	stopped := time.Now()
	for range cap(waiting) {
		if err := labtest.Ended(t, waiting); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("the application was told: %v", err)
		}
	}
	if took := time.Since(stopped); took > time.Second {
		t.Errorf("the applications were told %s after the stop", took)
	}
	labtest.Must(t, around.talk())
	again := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, again.talk())
}

// dialFrom connects the gateway itself to the Internet, from an address unless that is invalid.
func (w world) dialFrom(network string, source netip.Addr, port uint16) talker {
	w.t.Helper()
	d := &net.Dialer{Timeout: patience}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	conn, err := w.Gateway.DialWith(labtest.Context(w.t), d, network, netip.AddrPortFrom(w.family.servers[0], port).String())
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return talker{Conn: conn}
}

// TestPortInUse: what cannot be listened on is told before anything is changed.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{RPFilter: 1})
	collector, err := topology.Gateway.Listen("tcp4", "127.0.0.1:0")
	labtest.Must(t, err)
	defer collector.Close()
	dir := t.TempDir()
	config, blocked := filepath.Join(dir, "tapgw.yaml"), filepath.Join(dir, "tapgw.sock")
	labtest.Must(t, os.WriteFile(config, []byte("api: {metrics: '"+collector.Addr().String()+"'}\n"), 0o644))
	routes, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	labtest.Must(t, topology.Gateway.Do(func() error { return netlink.RouteSubscribe(routes, done) }))
	defer close(done)
	before := labtest.Snapshot(t, topology.Gateway)
	refuse := func(want ...string) {
		t.Helper()
		out, status := run(t, topology.Gateway, "run", "--socket", blocked, "--config", config)
		if status != 1 || lines(out) != 1 {
			t.Errorf("status %d\n%s", status, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q does not say %q", out, w)
			}
		}
		labtest.Unchanged(t, topology.Gateway, before)
	}
	refuse("address already in use", "set api.metrics", collector.Addr().String())
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	labtest.Must(t, os.WriteFile(blocked, nil, 0o644))
	refuse("is not a socket", "set api.socket")
	for len(routes) > 0 {
		if u := <-routes; u.Family == unix.AF_INET { // of IPv6 the kernel adds some when a link has come up
			t.Errorf("changed meanwhile: %s", u.Route)
		}
	}
}

// TestCleanupNamesWhatItRemoves: after a kill at the worst moments nothing is left, and every step is told.
func TestCleanupNamesWhatItRemoves(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{RPFilter: 1})
	labtest.Servers(t, topology)
	withoutMetric(t, topology.Gateway, "wan1")
	before := labtest.Snapshot(t, topology.Gateway)
	g := start(t, topology.Gateway, "")
	g.awaitUp(topology)
	online(t, topology.Hosts[0].Namespace)
	w := world{gateway: g, Topology: topology}
	conn := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, conn.talk())
	eventually(t, "rules for the LAN", func() bool { return w.hasTable("tapgw_fallback") })
	g.kill()
	half := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tapgw0"}, Mode: netlink.TUNTAP_MODE_TAP}
	labtest.Must(t, topology.Gateway.Do(func() error { return netlink.LinkAdd(half) }))
	labtest.Must(t, os.WriteFile(filepath.Join(g.dir, ".undo.json.123"), nil, 0o600))

	out, status := g.tapgw("cleanup", "--json")
	var answer struct {
		Cleaned []struct{ Action, Kind, Name string }
	}
	if err := json.Unmarshal([]byte(out), &answer); status != 0 || err != nil {
		t.Fatalf("status %d, %v\n%s", status, err, out)
	}
	told := make(map[string]int)
	for _, c := range answer.Cleaned {
		t.Log(c.Action, c.Kind, c.Name)
		told[c.Action+" "+c.Kind]++
	}
	for _, want := range []string{
		"removed route", "removed rule", "removed nftables", "restored sysctl", "restored default route", "closed connections",
		"removed device", "removed socket", "removed file",
	} {
		if told[want] == 0 && (want != "removed rule" || !withoutRules(t)) {
			t.Errorf("did not say: %s", want)
		}
	}
	if told["removed file"] != 3 {
		t.Errorf("%d files, want lock, journal and an unfinished journal", told["removed file"])
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("the application was told: %v", err)
	}
	labtest.Unchanged(t, topology.Gateway, before)
	noneKept(t, topology.Gateway)
	if files, err := os.ReadDir(g.dir); err != nil || len(files) != 1 || files[0].Name() != "usage.json" { // which is the user's
		t.Errorf("left behind: %v, %v", files, err)
	}
	if out, status := g.tapgw("cleanup"); status != 0 || out != "nothing to clean\n" {
		t.Errorf("second cleanup: status %d, %s", status, out)
	}
}

// withoutMetric gives a device's default route metric 0, as ifupdown does.
func withoutMetric(t testing.TB, ns *lab.Namespace, device string) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	routes, err := ns.Handle().RouteList(nil, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, r := range routes {
		if r.LinkIndex != index || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		old := r
		r.Priority, r.Flags = 0, 0
		labtest.Must(t, ns.Handle().RouteAdd(&r))
		labtest.Must(t, ns.Handle().RouteDel(&old))
	}
}

// noneKept fails the test where the kernel still keeps a neighbour fresh by itself.
func noneKept(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	list, err := ns.Handle().NeighList(0, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, n := range list {
		if n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			t.Errorf("the kernel still keeps %s", n.IP)
		}
	}
}
