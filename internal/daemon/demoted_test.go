package daemon

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/hostconf"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

// TestTwoDefaultsOfMetricZero: both get their metric back, and the first one stays the first.
func TestTwoDefaultsOfMetricZero(t *testing.T) {
	for _, test := range []struct {
		name     string
		together bool // both are there when we begin; else a DHCP client adds the second when we have moved the first
	}{{"together", true}, {"one after the other", false}} {
		t.Run(test.name, func(t *testing.T) {
			ns := labtest.Namespace(t, "host")
			first, second := uplinkWithoutRoute(t, ns, "a"), uplinkWithoutRoute(t, ns, "b")
			tap := uplinkWithoutRoute(t, ns, "tapgw0")
			labtest.Must(t, ns.Handle().RouteAppend(defaultBy(first)))
			if test.together {
				labtest.Must(t, ns.Handle().RouteAppend(defaultBy(second)))
			}
			labtest.Must(t, ns.Do(func() error {
				d := newDemoter(t, tap)
				defer d.kernel.Close()
				d.follow()
				if !test.together {
					labtest.Must(t, ns.Handle().RouteAppend(defaultBy(second)))
					d.follow()
				}
				d.expect(map[int]int{first: 1, second: 1}, func(metric int) bool { return metric > uplinks.CaptureMetric })
				return errors.Join(d.routes.Cleanup(), restoreDemoted(rtnl.NewReconciler(d.kernel), d.guard))
			}))
			routes, err := ns.Handle().RouteList(nil, netlink.FAMILY_V4)
			labtest.Must(t, err)
			var order []int
			for _, r := range routes {
				if r.Priority == 0 && (r.Dst == nil || r.Dst.IP.IsUnspecified()) {
					order = append(order, r.LinkIndex)
				}
			}
			if !slices.Equal(order, []int{first, second}) {
				t.Errorf("default routes of metric 0 by %v, want %v", order, []int{first, second})
			}
		})
	}
}

// uplinkWithoutRoute makes a device with an address, and returns its index.
// TestTwoDefaultsOfOneDevice: of two routers on one link both get their metric back.
func TestTwoDefaultsOfOneDevice(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	device, tap := uplinkWithoutRoute(t, ns, "a"), uplinkWithoutRoute(t, ns, "tapgw0")
	routers := []string{"10.1.0.1", "10.1.0.3"}
	for _, gw := range routers {
		labtest.Must(t, ns.Handle().RouteAppend(&netlink.Route{
			LinkIndex: device, Dst: everywhere, Gw: netip.MustParseAddr(gw).AsSlice(), Protocol: unix.RTPROT_STATIC,
		}))
	}
	labtest.Must(t, ns.Do(func() error {
		d := newDemoter(t, tap)
		defer d.kernel.Close()
		d.follow()
		d.follow()
		d.expect(map[int]int{device: 2}, func(metric int) bool { return metric > uplinks.CaptureMetric })
		return errors.Join(d.routes.Cleanup(), restoreDemoted(rtnl.NewReconciler(d.kernel), d.guard))
	}))
	list, err := ns.Handle().RouteList(nil, netlink.FAMILY_V4)
	labtest.Must(t, err)
	var restored []string
	for _, r := range list {
		if r.Priority == 0 && r.Gw != nil {
			restored = append(restored, r.Gw.String())
		}
	}
	if !slices.Equal(restored, routers) {
		t.Errorf("default routes of metric 0 by %v, want %v", restored, routers)
	}
}

func uplinkWithoutRoute(t *testing.T, ns *lab.Namespace, name string) int {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
	labtest.Must(t, ns.Handle().LinkAdd(link))
	address, err := netlink.ParseAddr(map[string]string{"a": "10.1.0.2/24", "b": "10.2.0.2/24", "tapgw0": "198.18.73.1/30"}[name])
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().AddrAdd(link, address))
	labtest.Must(t, ns.Handle().LinkSetUp(link))
	return link.Index
}

func defaultBy(index int) *netlink.Route {
	return &netlink.Route{LinkIndex: index, Dst: everywhere, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_DHCP}
}

// demoter captures as the daemon does.
type demoter struct {
	t       *testing.T
	kernel  *rtnl.Kernel
	routes  *rtnl.Reconciler
	guard   *hostconf.Guard
	tracker *uplinks.Tracker
	capture uplinks.Capture
}

func newDemoter(t *testing.T, tap int) *demoter {
	t.Helper()
	kernel, err := rtnl.Open()
	labtest.Must(t, err)
	guard, err := hostconf.Open(filepath.Join(t.TempDir(), "undo.json"))
	labtest.Must(t, err)
	return &demoter{
		t: t, kernel: kernel, routes: rtnl.NewReconciler(kernel), guard: guard,
		tracker: uplinks.NewTracker(uplinks.TrackerConfig{TapName: "tapgw0", AssumeHealthy: true}),
		capture: uplinks.Capture{TapIndex: tap, TapAddress: netip.MustParseAddr("198.18.73.1"), TapGateway: netip.MustParseAddr("198.18.73.2")},
	}
}

func (d *demoter) follow() {
	d.t.Helper()
	facts, err := d.kernel.Read()
	labtest.Must(d.t, err)
	snapshot, _ := d.tracker.Update(time.Now(), facts)
	report, err := d.routes.Apply(uplinks.Plan(snapshot, facts, d.capture))
	labtest.Must(d.t, err)
	labtest.Must(d.t, recordDemoted(d.guard, report.Demoted))
}

// expect counts the default routes by device whose metric is as it should be.
func (d *demoter) expect(want map[int]int, ok func(metric int) bool) {
	d.t.Helper()
	facts, err := d.kernel.Read()
	labtest.Must(d.t, err)
	for _, r := range facts.Routes {
		if r.Dst.Bits() == 0 && ok(r.Metric) {
			want[r.Index]--
		}
	}
	for index, missing := range want {
		if missing != 0 {
			d.t.Errorf("device %d: %d default routes are missing among %+v", index, missing, facts.Routes)
		}
	}
}
