package rtnl

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// dualCapture makes a TAP with IPv6 in a dualWorld.
func dualCapture(t *testing.T) (*world, *uplinks.Tracker, uplinks.Capture) {
	w := dualWorld(t)
	w.tap()
	inside := parse("2001:db8:1::abcd/128")
	inside.Flags = unix.IFA_F_NODAD
	w.must(w.h.AddrAdd(w.link("tapgw0"), inside))
	c := w.capture()
	c.TapAddressV6, c.TapGatewayV6 = netip.MustParseAddr("2001:db8:1::abcd"), netip.MustParseAddr("fe80::7467")
	return w, uplinks.NewTracker(uplinks.TrackerConfig{TapName: "tapgw0", AssumeHealthy: true}), c
}

// sourceTo is the address that the kernel would send from.
func (w *world) sourceTo(dst string) string {
	w.t.Helper()
	routes, err := w.h.RouteGet(net.ParseIP(dst))
	w.must(err)
	return routes[0].Src.String()
}

// TestCaptureOfIPv6: what has no address yet goes to the TAP from its address there, all else as before; nothing is left.
func TestCaptureOfIPv6(t *testing.T) {
	w, tr, c := dualCapture(t)
	before := w.objects()
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)
	w.expectLeaving(map[[2]string]string{
		{"", "2001:db8:f::1"}:                     "tapgw0",
		{"2001:db8:1::abcd", "2001:db8:f::1"}:     "tapgw0",
		{"2001:db8:1::2", "2001:db8:f::1"}:        "wan0",
		{"2001:db8:2::2", "2001:db8:f::1"}:        "wan1",
		{"", "2001:db8:2::9"}:                     "wan1",
		{"", "198.51.100.1"}:                      "tapgw0",
		{"2001:db8:2::2", "2606:4700:4700::1111"}: "wan1",
	})
	if got := w.sourceTo("2001:db8:f::1"); got != "2001:db8:1::abcd" {
		t.Errorf("sends from %s", got)
	}
	if again := w.apply(rec, tr, c); again.Changed() {
		t.Errorf("second Apply changed %+v", again)
	}
	without := c
	without.TapAddressV6 = netip.Addr{}
	w.apply(rec, tr, without)
	if by := w.leavesBy("", "2001:db8:f::1"); by == "tapgw0" {
		t.Error("still captured")
	}
	w.must(rec.Cleanup())
	w.sameObjects(before)
}

// TestIPv6RouteIsPutBack: also the kernel's own removal, with the device switched off, is made good.
func TestIPv6RouteIsPutBack(t *testing.T) {
	w, tr, c := dualCapture(t)
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)
	w.must(w.h.RouteDel(toRoute(uplinks.Route{Table: uplinks.TableMain, Dst: everything(unix.AF_INET6), Gateway: c.TapGatewayV6,
		Index: c.TapIndex, Metric: uplinks.CaptureMetric, Protocol: uplinks.Protocol})))
	if report := w.apply(rec, tr, c); len(report.LostRoutes) != 1 {
		t.Errorf("lost %+v", report.LostRoutes)
	}
	w.expectLeaving(map[[2]string]string{{"", "2001:db8:f::1"}: "tapgw0"})
}

// TestDemotionOfIPv6: the first metric leaves no room before it. IPv4 that was demoted from the same metric stays.
func TestDemotionOfIPv6(t *testing.T) {
	w, tr, c := dualCapture(t)
	w.defaultVia("wan0", "192.0.1.1", 1)
	rec := NewReconciler(w.k)
	before := w.objects()
	report := w.apply(rec, tr, c)
	first := &netlink.Route{Dst: toIPNet(everything(unix.AF_INET6)), Gw: net.ParseIP("fe80::1"), LinkIndex: w.link("wan0").Attrs().Index,
		Family: unix.AF_INET6, Priority: 1, Protocol: unix.RTPROT_STATIC}
	w.must(w.h.RouteAdd(first))
	second := w.apply(rec, tr, c)
	if len(report.Demoted) != 1 || len(second.Demoted) != 1 || second.Demoted[0].Metric != 76 {
		t.Fatalf("demoted %+v, then %+v", report.Demoted, second.Demoted)
	}
	w.expectLeaving(map[[2]string]string{{"", "2001:db8:f::1"}: "tapgw0", {"", "198.51.100.1"}: "tapgw0"})
	w.undo(rec, append(report.Demoted, second.Demoted...))
	w.must(w.h.RouteDel(first))
	w.sameObjects(before)
}

// TestCaptureOfQuestions: of both families, what is asked of a resolver on a dead link is led elsewhere, once, and nothing is left.
func TestCaptureOfQuestions(t *testing.T) {
	w, tr, c := dualCapture(t)
	rec := NewReconciler(w.k)
	w.apply(rec, tr, c)
	before := w.objects()
	f := w.read()
	f.Resolvers = map[int][]netip.Addr{
		w.link("wan0").Attrs().Index: {netip.MustParseAddr("192.0.1.1"), netip.MustParseAddr("2001:db8:1::77")},
		w.link("wan1").Attrs().Index: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:2::77")},
	}
	s, _ := tr.Update(time.Now(), f)
	for i, state := range []uplinks.State{uplinks.Down, uplinks.Up} {
		s.Uplinks[i].State, s.Uplinks[i].V6.State = state, state
	}
	for i, added := range []int{4, 0} {
		report, err := rec.Apply(uplinks.Plan(s, f, c))
		w.must(err)
		if len(report.Rules) != added || len(report.RemovedRules) > 0 {
			t.Errorf("Apply %d: %+v", i+1, report)
		}
	}
	w.apply(rec, tr, c)
	if after := w.objects(); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
}
