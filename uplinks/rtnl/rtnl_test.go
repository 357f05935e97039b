package rtnl

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
	"tapgw/uplinks"
)

func TestReadSeesWhatIsThere(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "192.0.2.10", "192.0.2.1")
	w.must(w.h.AddrAdd(w.link("wan0"), parse("192.0.2.11/24")))
	w.defaultVia("wan0", "192.0.2.1", 100)
	w.tun("tun7", "203.0.113.9/32", unix.IFF_TUN)
	f := w.read()
	wan, _ := findLink(f, "wan0")
	if wan.Index != index || !wan.Up || !wan.Carrier || wan.HeaderLess || wan.Kind != "veth" || wan.MTU != 1500 || wan.MAC == [6]byte{} {
		t.Errorf("wan0: %+v", wan)
	}
	if wan.Speed == 0 {
		t.Error("the veth driver says 10 Gbit/s, but no speed was read")
	}
	if tun, _ := findLink(f, "tun7"); !tun.HeaderLess || !tun.PointToPoint || tun.Kind != "tun" || tun.MAC != [6]byte{} {
		t.Errorf("tun7: %+v", tun)
	}
	want := []uplinks.Address{
		{Index: index, Prefix: netip.MustParsePrefix("192.0.2.10/24")},
		{Index: index, Prefix: netip.MustParsePrefix("192.0.2.11/24")},
	}
	got := slices.DeleteFunc(f.Addresses, func(a uplinks.Address) bool { return a.Index != index })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("addresses %+v", got)
	}
	route := uplinks.Route{Table: 254, Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"),
		Index: index, Metric: 100, Protocol: unix.RTPROT_DHCP}
	if !slices.Contains(f.Routes, route) {
		t.Errorf("routes %+v", f.Routes)
	}
}

func TestPeerAddressAndMultipath(t *testing.T) {
	w := newWorld(t)
	a := w.veth("a", "10.1.0.2", "")
	b := w.veth("b", "", "")
	peer := parse("10.2.0.1/32")
	peer.Peer = &net.IPNet{IP: net.ParseIP("10.2.0.9").To4(), Mask: net.CIDRMask(30, 32)}
	w.must(w.h.AddrAdd(w.link("b"), peer))
	w.must(w.h.RouteAdd(&netlink.Route{Dst: defaultNet(), MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: a, Gw: net.ParseIP("10.1.0.1").To4()}, {LinkIndex: b, Gw: net.ParseIP("10.2.0.9").To4()}}}))
	f := w.read()
	want := uplinks.Address{Index: b, Prefix: netip.MustParsePrefix("10.2.0.1/30"), Peer: netip.MustParseAddr("10.2.0.9")}
	if !slices.Contains(f.Addresses, want) {
		t.Errorf("addresses %+v", f.Addresses)
	}
	s, _ := uplinks.NewTracker(uplinks.TrackerConfig{}).Update(time.Time{}, f)
	if len(s.Uplinks) != 2 {
		t.Errorf("a multipath default route makes %d uplinks", len(s.Uplinks))
	}
}

// TestRoutesThatLeadNowhere: all kinds are told when they come and go, and nothing leads to a part of the LAN then.
func TestRoutesThatLeadNowhere(t *testing.T) {
	w := newWorld(t)
	lan := w.veth("lan0", "10.0.0.1", "")
	notify := w.watch()
	part := netip.MustParsePrefix("10.0.0.64/28")
	leads := func(want bool) func(uplinks.Facts) bool {
		return func(f uplinks.Facts) bool {
			ways := uplinks.FindWays(f, []int{lan})
			return ways.Hop(packet.IPv4(10<<24|2)) > 0 && (ways.Hop(packet.IPv4(10<<24|65)) > 0) == want
		}
	}
	for _, kind := range []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW, unix.RTN_LOCAL} {
		w.await(notify, "a way", leads(true))
		r := &netlink.Route{Dst: toIPNet(part), Type: kind, Table: unix.RT_TABLE_MAIN, Priority: 7, Protocol: unix.RTPROT_STATIC}
		if kind == unix.RTN_LOCAL {
			r.LinkIndex, r.Scope = lan, unix.RT_SCOPE_HOST
		}
		w.must(w.h.RouteAdd(r))
		f := w.await(notify, "no way", leads(false))
		want := uplinks.Route{Table: uplinks.TableMain, Dst: part, Metric: 7, Protocol: unix.RTPROT_STATIC}
		if !slices.Contains(f.Routes, want) {
			t.Errorf("type %d: routes %+v", kind, f.Routes)
		}
		w.must(w.h.RouteDel(r))
	}
}

func TestWatcherTellsCarrierLossAtOnce(t *testing.T) {
	w := newWorld(t)
	w.veth("wan0", "192.0.2.10", "192.0.2.1")
	notify := w.watch()
	carrier := func(want bool) func(uplinks.Facts) bool {
		return func(f uplinks.Facts) bool { wan, _ := findLink(f, "wan0"); return wan.Carrier == want }
	}
	best := time.Hour
	for range 5 { // the machine may be busy: the best of a few is what the code needs
		start := time.Now()
		w.must(w.wires["wan0"].Cut())
		w.await(notify, "carrier loss", carrier(false))
		best = min(best, time.Since(start))
		w.must(w.wires["wan0"].Mend())
		w.await(notify, "carrier", carrier(true))
	}
	if best > 200*time.Millisecond {
		t.Errorf("carrier loss took %v", best)
	}
}

// cut takes the carrier away and waits until routes are marked so.
func (w *world) cut(name string) {
	w.t.Helper()
	notify := w.watch()
	w.must(w.wires[name].Cut())
	w.await(notify, "carrier loss", func(f uplinks.Facts) bool {
		wan, _ := findLink(f, name)
		return !wan.Carrier
	})
}

func TestWatcherTellsEveryKindOfChange(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "192.0.2.10", "192.0.2.1")
	notify := w.watch()
	w.must(w.h.AddrReplace(w.link("wan0"), parse("192.0.2.99/24")))
	w.await(notify, "address", func(f uplinks.Facts) bool { return len(f.Addresses) == 2 })
	w.defaultVia("wan0", "192.0.2.1", 7)
	w.await(notify, "route", func(f uplinks.Facts) bool {
		return slices.ContainsFunc(f.Routes, func(r uplinks.Route) bool { return r.Metric == 7 })
	})
	gateway := netip.MustParseAddr("192.0.2.1")
	w.must(w.k.KeepNeighbour(index, gateway))
	w.await(notify, "neighbour", func(f uplinks.Facts) bool { return hasMAC(f, index, gateway) })
	w.must(w.k.ReleaseNeighbour(index, gateway))
	list, err := w.h.NeighList(index, unix.AF_INET)
	w.must(err)
	for _, n := range list {
		if n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			t.Errorf("still kept: %+v", n)
		}
	}
}

func TestWatcherSurvivesLostMessages(t *testing.T) {
	w := newWorld(t)
	w.veth("wan0", "192.0.2.10", "192.0.2.1")
	watcher := w.newWatcher()
	w.must(watcher.socket.SetReceiveBufferSize(1, false)) // the kernel's minimum: a few messages
	for range 100 {
		w.must(w.h.AddrReplace(w.link("wan0"), parse("192.0.2.99/24")))
		w.must(w.h.AddrDel(w.link("wan0"), parse("192.0.2.99/24")))
	}
	if _, _, err := watcher.socket.Receive(); !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("no overflow but %v, the test proves nothing", err)
	}
	w.must(w.h.AddrReplace(w.link("wan0"), parse("192.0.2.99/24")))
	notify := w.run(watcher)
	select {
	case <-notify:
	case <-time.After(bound):
		t.Fatal("silent after an overflow")
	}
	w.defaultVia("wan0", "192.0.2.1", 7)
	w.await(notify, "route", func(f uplinks.Facts) bool {
		return slices.ContainsFunc(f.Routes, func(r uplinks.Route) bool { return r.Metric == 7 })
	})
}

func TestMultipathDefaultIsDemotedWhole(t *testing.T) {
	w := newWorld(t)
	a, b := w.veth("a", "10.1.0.2", "10.1.0.1"), w.veth("b", "10.2.0.2", "10.2.0.1")
	w.must(w.h.RouteAdd(&netlink.Route{Dst: defaultNet(), MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: a, Gw: net.ParseIP("10.1.0.1").To4()}, {LinkIndex: b, Gw: net.ParseIP("10.2.0.1").To4()}}}))
	w.tap()
	before := w.objects()
	rec, tr := NewReconciler(w.k), uplinks.NewTracker(uplinks.TrackerConfig{TapName: "tapgw0"})
	report := w.apply(rec, tr, w.capture())
	w.expectLeaving(map[[2]string]string{{"", "198.51.100.1"}: "tapgw0", {"10.2.0.2", "198.51.100.1"}: "b"})
	again := w.apply(rec, tr, w.capture())
	if len(report.Demoted) != 1 || again.Changed() {
		t.Errorf("demoted %+v, then changed %+v", report.Demoted, again)
	}
	w.undo(rec, report.Demoted)
	w.sameObjects(before)
}

func TestGatewayMACChangeIsFollowed(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "192.0.2.10", "192.0.2.1")
	notify := w.watch()
	gateway := netip.MustParseAddr("192.0.2.1")
	w.must(w.k.KeepNeighbour(index, gateway))
	w.await(notify, "first MAC", func(f uplinks.Facts) bool { return hasMAC(f, index, gateway) })
	mac := [6]byte{2, 0, 0, 0, 0, 0x42}
	// A gratuitous ARP ends in this very change.
	w.must(w.h.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, IP: toIP(gateway), State: netlink.NUD_REACHABLE, HardwareAddr: mac[:]}))
	w.await(notify, "new MAC", func(f uplinks.Facts) bool {
		return slices.ContainsFunc(f.Neighbours, func(n uplinks.Neighbour) bool { return n.Addr == gateway && n.MAC == mac })
	})
}

// TestGatewayIsAskedAgainOnceThereIsAnAddress: before, it is asked from another device's, and does not answer.
func TestGatewayIsAskedAgainOnceThereIsAnAddress(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "", "192.0.2.1")
	w.must(w.isps.Sysctl("net/ipv4/conf/all/rp_filter", "1")) // as most routers answer only whom they would reach there
	w.must(w.host.Sysctl("net/ipv4/neigh/wan0/retrans_time_ms", "60000"))
	w.must(w.h.AddrAdd(w.link("lo"), parse("10.9.9.9/32")))
	notify := w.watch()
	gateway := netip.MustParseAddr("192.0.2.1")
	w.must(w.k.KeepNeighbour(index, gateway))
	if n, err := w.k.entry(index, gateway); n.State != netlink.NUD_INCOMPLETE {
		t.Fatalf("%+v (%v), the test proves nothing", n, err)
	}
	w.must(w.h.AddrAdd(w.link("wan0"), parse("192.0.2.10/24")))
	w.must(w.k.KeepNeighbour(index, gateway))
	w.await(notify, "ARP", func(f uplinks.Facts) bool { return hasMAC(f, index, gateway) })
}

func TestApplyCapturesAndCleanupRestores(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	before := w.objects()
	rec := NewReconciler(w.k)
	report := w.apply(rec, tr, c)
	if len(report.Demoted) != 1 || report.Demoted[0].Original.Metric != 0 || len(report.LostRoutes)+len(report.LostRules) != 0 {
		t.Errorf("report %+v", report)
	}
	w.expectLeaving(map[[2]string]string{
		{"", "198.51.100.1"}:              "tapgw0",
		{"192.168.1.10", "198.51.100.1"}:  "wan0",
		{"192.168.1.20", "198.51.100.1"}:  "wan1",
		{"203.0.113.9", "198.51.100.1"}:   "tun7",
		{"", "224.0.0.251"}:               "wan0",
		{"", "255.255.255.255"}:           "wan0",
		{"192.168.1.10", "198.18.73.2"}:   "tapgw0",
		{"198.18.73.1", "198.51.100.200"}: "tapgw0",
	})
	again := w.apply(rec, tr, c)
	if again.Changed() {
		t.Errorf("second Apply changed %+v", again)
	}
	w.undo(rec, roundTrip(t, report.Demoted))
	w.sameObjects(before)
}

func roundTrip(t *testing.T, records []Record) []Record {
	t.Helper()
	data, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnotherProcessCleansUp(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	before := w.objects()
	report := w.apply(NewReconciler(w.k), tr, c)
	fresh := NewReconciler(w.k)
	w.undo(fresh, report.Demoted)
	w.sameObjects(before)
}

func TestForeignRulesAndRoutesStay(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	foreign := netlink.NewRule()
	foreign.Family, foreign.Priority, foreign.Table = unix.AF_INET, 5150, 999
	w.must(w.h.RuleAdd(foreign))
	w.expectNoTrace(tr, c)
	if f := w.read(); !f.Ruled || f.V6.Ruled {
		t.Errorf("rules of others: %t, of IPv6: %t", f.Ruled, f.V6.Ruled)
	}
	w.must(w.h.RuleDel(foreign))
	w.apply(NewReconciler(w.k), tr, c)
	if w.read().Ruled {
		t.Error("rules of ours are taken for others'")
	}
}

func TestWhatOthersDeleteIsPutBack(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)
	notify := w.watch()
	want := w.objects()
	have, err := w.k.present()
	w.must(err)
	for i := range have.rules {
		w.must(w.h.RuleDel(&have.rules[i]))
	}
	for i := range have.routes {
		w.must(w.h.RouteDel(&have.routes[i]))
	}
	select {
	case <-notify:
	case <-time.After(bound):
		t.Fatal("deletions were not told")
	}
	report := w.apply(rec, tr, c)
	if len(report.LostRules) != len(have.rules) || len(report.LostRoutes) != len(have.routes) {
		t.Errorf("lost %d rules and %d routes, want %d and %d", len(report.LostRules), len(report.LostRoutes), len(have.rules), len(have.routes))
	}
	w.sameObjects(want)
}

func TestRenumberedAndReplugged(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)

	w.must(w.h.AddrDel(w.link("wan1"), parse("192.168.1.20/24")))
	w.must(w.h.AddrAdd(w.link("wan1"), parse("172.20.0.5/24")))
	w.defaultVia("wan1", "172.20.0.1", 101)
	w.apply(rec, tr, c)
	w.expectLeaving(map[[2]string]string{{"172.20.0.5", "198.51.100.1"}: "wan1", {"", "198.51.100.1"}: "tapgw0"})

	old := w.link("wan1").Attrs().Index
	w.must(w.h.LinkDel(w.link("wan1")))
	w.apply(rec, tr, c)
	for _, o := range w.objects() {
		if strings.Contains(o, "172.20.0.5") {
			t.Errorf("left over: %s", o)
		}
	}
	w.veth("wan1", "192.168.1.21", "192.168.1.1")
	w.defaultVia("wan1", "192.168.1.1", 100)
	if w.link("wan1").Attrs().Index == old {
		t.Fatal("the index did not change, the test proves nothing")
	}
	w.apply(rec, tr, c)
	w.expectLeaving(map[[2]string]string{{"192.168.1.21", "198.51.100.1"}: "wan1", {"192.168.1.10", "198.51.100.1"}: "wan0"})
}

func TestInterfaceSwitchedOffAndOn(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)
	w.cut("wan1") // routes of a link without carrier stay, with a mark on them
	report := w.apply(rec, tr, c)
	if report.Changed() {
		t.Errorf("carrier loss changed %+v", report)
	}
	w.must(w.h.LinkSetDown(w.link("wan1")))
	w.apply(rec, tr, c)
	w.must(w.h.LinkSetUp(w.link("wan1")))
	w.must(w.wires["wan1"].Mend())
	w.apply(rec, tr, c)
	w.expectLeaving(map[[2]string]string{{"192.168.1.20", "198.51.100.1"}: "wan1"})
}

func TestCleanupWithoutCarrier(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	w.cut("wan0")
	w.expectNoTrace(tr, c)
}

func TestTapDeletedAndMadeAgain(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	first := w.apply(rec, tr, c)
	w.must(w.h.LinkDel(w.link("tapgw0")))
	if got := w.leavesBy("", "198.51.100.1"); got != "wan0" {
		t.Errorf("without the TAP traffic leaves by %s, want wan0 as before us", got)
	}
	w.tap()
	w.apply(rec, tr, w.capture())
	w.expectLeaving(map[[2]string]string{{"", "198.51.100.1"}: "tapgw0"})
	w.undo(rec, first.Demoted)
}

func TestCounters(t *testing.T) {
	w := newWorld(t)
	index := w.veth("wan0", "192.0.2.10", "192.0.2.1")
	notify := w.watch()
	gateway := netip.MustParseAddr("192.0.2.1")
	w.must(w.k.KeepNeighbour(index, gateway))
	w.await(notify, "ARP", func(f uplinks.Facts) bool { return hasMAC(f, index, gateway) })
	c, err := w.k.Counters(index)
	w.must(err)
	if c.RxBytes == 0 || c.TxBytes == 0 {
		t.Errorf("counters %+v after an ARP exchange", c)
	}
	if _, err := w.k.Counters(9999); err == nil {
		t.Error("no error for a device that does not exist")
	}
}
