package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestFault19_Renumber is fault 19: only the sessions of the renumbered uplink end, and new ones use the new address.
func TestFault19_Renumber(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	begun := time.Now()
	labtest.Must(t, first.Renumber(netip.MustParsePrefix("100.64.77.5/24"), netip.MustParsePrefix("100.64.77.1/24")))
	w.events.await("new address", begun, func(e api.Event) bool {
		return e.Kind == api.EventAddresses && e.Uplink == "wan1" && strings.Contains(e.Message, "100.64.77.5")
	})
	w.events.state("wan1", api.StateUp, begun)
	if err := onFirst.talk(); err == nil {
		t.Error("a session of the lost address goes on")
	}
	labtest.Must(t, onSecond.talk())
	visits := keepVisiting(t, w.lan)
	visits.by(netip.MustParseAddr("100.64.77.5"), time.Now())
	visits.by(w.Uplinks[1].Addr(), time.Now())
	expectOutage(t, visits.stop(), begun, 0)
	if u := w.uplink("wan1"); len(u.Addresses) != 1 || u.Addresses[0] != first.Addr() || u.Gateway != first.NextHop() {
		t.Errorf("status: %+v", u)
	}
	rules := lookups(t, w.Gateway)
	if rules["100.64.77.5/32"] == 0 && !withoutRules(t) || rules["100.64.1.2/32"] != 0 {
		t.Errorf("rules: %v", rules)
	}
	w.events.none(0, begun, isRepair)
}

// lookups are the tables that rules name for each source.
func lookups(t testing.TB, ns *lab.Namespace) map[string]int {
	t.Helper()
	rules, err := ns.Handle().RuleList(netlink.FAMILY_V4)
	labtest.Must(t, err)
	m := make(map[string]int)
	for _, r := range rules {
		if r.Src != nil {
			m[r.Src.String()] = r.Table
		}
	}
	return m
}

// TestFault18_SameAddressAgain is a lease renewed the rude way: the sessions go on, and nobody is accused of removing routes.
func TestFault18_SameAddressAgain(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	onFirst := w.connect(w.lan, "wan1")
	for range 3 {
		begun := time.Now()
		labtest.Must(t, first.Renumber(first.Link.Near.Prefix, first.Link.Far.Prefix))
		visits := keepVisiting(t, w.lan)
		visits.by(first.Addr(), time.Now())
		labtest.Must(t, onFirst.talk())
		visits.stop()
		w.events.none(0, begun, isRepair)
	}
	if s, ok := w.session("tcp", portOf(onFirst)); !ok || s.Uplink != "wan1" {
		t.Errorf("session %+v", s)
	}
}

// TestFault23_GatewayMAC is fault 23: another router takes the gateway's address over and says so.
func TestFault23_GatewayMAC(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	isp := w.Uplinks[0].ISP
	established := w.connect(w.lan, "wan1")
	labtest.Must(t, isp.Sysctl("net/ipv4/conf/"+lab.DeviceCustomer+"/arp_notify", "1"))
	begun := time.Now()
	setMAC(t, isp, lab.DeviceCustomer, "02:00:64:40:01:77")
	changed := w.events.await("gateway changed", begun, func(e api.Event) bool { return e.Kind == api.EventGateway })
	if took := changed.Time.Sub(begun); took > time.Second {
		t.Errorf("followed only after %s", took)
	}
	labtest.Must(t, established.talk())
	w.events.none(0, begun, leaves(api.StateUp))
}

// TestFault23_GatewayMACSilently: a router that is replaced without a word is found once the probes fail.
func TestFault23_GatewayMACSilently(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, waiting(preferFirst))
	established := w.connect(w.lan, "wan1")
	begun := time.Now()
	setMAC(t, w.Uplinks[0].ISP, lab.DeviceCustomer, "02:00:64:40:01:78")
	w.events.await("gateway changed", begun, func(e api.Event) bool { return e.Kind == api.EventGateway })
	if u := w.uplink("wan1"); u.State != api.StateUp {
		w.events.state("wan1", api.StateUp, begun)
	}
	took := time.Since(begun)
	t.Logf("found after %s", took)
	if took > returnBound {
		t.Errorf("found only after %s", took)
	}
	labtest.Must(t, established.talk())
}

func setMAC(t testing.TB, ns *lab.Namespace, device, mac string) {
	t.Helper()
	link, err := ns.Handle().LinkByName(device)
	labtest.Must(t, err)
	addr, err := net.ParseMAC(mac)
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().LinkSetHardwareAddr(link, addr))
}

// TestFault55_60_Unplug is fault 55: the interface goes and returns with another index, to the same sessions and without a spike in its
// load (fault 60).
func TestFault55_60_Unplug(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, waiting(inTurn))
	first, second := w.Uplinks[0], w.Uplinks[1]
	onFirst := w.connect(w.lan, "wan1")
	transfer, err := w.lan.BulkDownload(labtest.Context(t), lab.ServerAddrs[0], 1, 32<<20) // so that there are counts to lose
	labtest.Must(t, err)
	visits := keepVisiting(t, w.lan)
	index, err := w.Gateway.Index("wan1")
	labtest.Must(t, err)
	begun := time.Now()
	labtest.Must(t, first.Unplug())
	gone := time.Now()
	down := w.events.state("wan1", api.StateDown, begun)
	if down.Message == "" {
		t.Error("down without a reason")
	}
	visits.by(second.Addr(), gone.Add(carrierBound))
	back := time.Now()
	labtest.Must(t, first.Replug())
	if again, err := w.Gateway.Index("wan1"); err != nil || again == index {
		t.Fatalf("index %d again, %v", again, err)
	}
	w.events.state("wan1", api.StateUp, back)
	visits.by(first.Addr(), back)
	labtest.Must(t, onFirst.talk())
	expectOutage(t, visits.stop(), begun, gone.Sub(begun)+carrierBound)
	if u := w.uplink("wan1"); u.RxBps > transfer.Rate()/10 || u.TxBps > transfer.Rate()/10 {
		t.Errorf("load of the new interface: %.0f and %.0f bit/s", u.RxBps, u.TxBps)
	}
	w.events.none(0, begun, isRepair)
}

// TestFault55_Rename: an interface with another name is the same uplink.
func TestFault55_Rename(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	onFirst := w.connect(w.lan, "wan1")
	before := settledState(t, w.Gateway)
	handle := w.Gateway.Handle()
	link, err := handle.LinkByName("wan1")
	labtest.Must(t, err)
	rename := func(name string) {
		t.Helper()
		labtest.Must(t, handle.LinkSetName(link, name))
		eventually(t, "the new name", func() bool { return w.uplink("wan1").Interface == name })
		visits := keepVisiting(t, w.lan)
		visits.by(w.Uplinks[0].Addr(), time.Now())
		labtest.Must(t, onFirst.talk())
	}
	rename("fiber0")
	rename("wan1")
	eventually(t, "the state before", func() bool { // the status names the new interface before the rules follow
		removed, added := lab.Diff(before, labtest.Snapshot(t, w.Gateway))
		return len(removed)+len(added) == 0
	})
}

// settledState is a host's state once a whole look of the daemon at everything has changed nothing.
func settledState(t *testing.T, gateway *lab.Namespace) (state lab.State) {
	t.Helper()
	state = labtest.Snapshot(t, gateway)
	since := time.Now()
	eventually(t, "a state that rests", func() bool {
		now := labtest.Snapshot(t, gateway)
		if removed, added := lab.Diff(state, now); len(removed)+len(added) > 0 {
			state, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return state
}

// TestDefaultRouteGone: an uplink stays known when its default route is taken away, and follows a new one.
func TestDefaultRouteGone(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	begun := time.Now()
	labtest.Must(t, first.RemoveDefault())
	visits := keepVisiting(t, w.lan)
	visits.by(first.Addr(), time.Now().Add(carrierBound))
	labtest.Must(t, first.AddRoutes())
	visits.by(first.Addr(), time.Now().Add(carrierBound))
	expectOutage(t, visits.stop(), begun, 0)
	w.events.none(0, begun, leaves(api.StateUp))
}

// TestNewUplink: a third uplink that appears at run time is used.
func TestNewUplink(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 3)})
	labtest.Servers(t, topology)
	third := topology.Uplinks[2]
	labtest.Must(t, third.Unplug())
	before := labtest.Snapshot(t, topology.Gateway)
	g := start(t, topology.Gateway, inTurn)
	g.awaitState("wan1", api.StateUp)
	events := g.record()
	w := world{g, topology, topology.Hosts[0].Namespace, events}
	w.meetLAN()
	begun := time.Now()
	labtest.Must(t, third.Replug())
	events.await("wan3 appeared", begun, func(e api.Event) bool { return e.Kind == api.EventAppeared && e.Uplink == "wan3" })
	events.state("wan3", api.StateUp, begun)
	visits := keepVisiting(t, w.lan)
	visits.by(third.Addr(), begun)
	expectOutage(t, visits.stop(), begun, 0)
	labtest.Must(t, third.Unplug())
	g.stop()
	labtest.Unchanged(t, topology.Gateway, before)
}

// metricZero starts a daemon beside an uplink whose default route has no metric.
func metricZero(t testing.TB, uplink int) (w world, before lab.State) {
	t.Helper()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	u := topology.Uplinks[uplink]
	labtest.Must(t, u.RemoveDefault())
	addDefault(t, topology.Gateway, u, 0)
	before = labtest.Snapshot(t, topology.Gateway)
	return world{gateway: start(t, topology.Gateway, inTurn), Topology: topology}, before
}

// TestMetricZero: a default route that nothing can precede is moved behind ours, and moved back by whoever ends last.
func TestMetricZero(t *testing.T) {
	t.Parallel()
	w, before := metricZero(t, 0)
	w.awaitUp(w.Topology)
	w.expectCapture()
	online(t, w.Gateway)
	w.stop()
	labtest.Unchanged(t, w.Gateway, before)

	w.restart()
	w.awaitUp(w.Topology)
	w.expectCapture()
	w.kill()
	online(t, w.Gateway)
	w.expectCleanup(before)
}

func (w world) expectCapture() {
	w.t.Helper()
	if !w.captures() {
		w.t.Error("not captured")
	}
}

// TestMetricZeroLater: a DHCP client comes with such a route while the daemon runs.
func TestMetricZeroLater(t *testing.T) {
	t.Parallel()
	w, before := metricZero(t, 1)
	second := w.Uplinks[1]
	w.awaitState("wan1", api.StateUp)
	labtest.Must(t, second.AddRoutes())
	eventually(t, "capture", w.captures)
	addDefault(t, w.Gateway, second, 0)
	eventually(t, "capture", w.captures)
	online(t, w.Gateway)
	labtest.Must(t, second.RemoveDefault())
	w.stop()
	if w.err != nil {
		t.Errorf("exit: %v", w.err)
	}
	labtest.Unchanged(t, w.Gateway, before)
}

func addDefault(t testing.TB, ns *lab.Namespace, u *lab.Uplink, metric int) {
	t.Helper()
	index, err := ns.Index(u.Device)
	labtest.Must(t, err)
	_, everywhere, err := net.ParseCIDR("0.0.0.0/0")
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().RouteAdd(&netlink.Route{Dst: everywhere, Gw: u.NextHop().AsSlice(), LinkIndex: index, Priority: metric}))
}

// TestMTU is fault 33: the smaller MTU is told to whoever sends too much, and nobody is accused of having changed the TAP's.
func TestMTU(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)}, "")
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Link.SetMTU(1400))
	c, err := w.lan.Dial(labtest.Context(t), "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
	labtest.Must(t, err)
	defer c.Close()
	awaitPathMTU(t, c, 1400)
	if _, err := w.lan.Download(labtest.Context(t), lab.ServerAddrs[0], 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := w.lan.Upload(labtest.Context(t), lab.ServerAddrs[0], 1<<20); err != nil {
		t.Error(err)
	}
	w.events.none(0, begun, isRepair)
}

// awaitPathMTU sends datagrams that are too long and must not be cut, until the kernel has been told of a smaller MTU.
func awaitPathMTU(t testing.TB, c net.Conn, want int) {
	t.Helper()
	pathMTU := func() (mtu int) {
		labtest.Must(t, onSocket(c.(*net.UDPConn), func(fd int) error {
			if local(c).Addr().Is6() {
				err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_MTU_DISCOVER, syscall.IPV6_PMTUDISC_DO)
				mtu, _ = syscall.GetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_MTU)
				return err
			}
			err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, syscall.IP_PMTUDISC_DO)
			mtu, _ = syscall.GetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_MTU)
			return err
		}))
		return mtu
	}
	eventually(t, fmt.Sprintf("a path MTU of %d", want), func() bool {
		_, _ = c.Write(make([]byte, want+50))
		return pathMTU() == want
	})
}

// TestFault60_TenTimesFaster is fault 60: load is measured against the capacity, so the faster uplink gets about ten times as much,
// and not everything.
func TestFault60_TenTimesFaster(t *testing.T) {
	t.Parallel()
	const fast, slow = 40, 4 // Mbit/s
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(fast), shaped(slow)}}, capacities([2]int{fast, fast}, [2]int{slow, slow}))
	before := [2]uint64{received(t, w, 0), received(t, w, 1)}
	downloadFor(t, w.lan, 4*time.Second, 20, 100_000, 0)
	ratio := float64(received(t, w, 0)-before[0]) / float64(received(t, w, 1)-before[1])
	t.Logf("the faster uplink carried %.1f times as much", ratio)
	if ratio < 5 || ratio > 20 {
		t.Errorf("the faster uplink carried %.1f times as much", ratio)
	}
}
