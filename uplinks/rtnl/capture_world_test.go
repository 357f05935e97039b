package rtnl

import (
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// gatewayWorld is two uplinks with the same gateway address, a metric-0 default, a header-less uplink, and a stand-in for
// the TAP. Route reports what is used now.
func gatewayWorld(w *world) (*uplinks.Tracker, uplinks.Capture) {
	w.t.Helper()
	w.veth("wan0", "192.168.1.10", "192.168.1.1")
	w.veth("wan1", "192.168.1.20", "192.168.1.1")
	w.defaultVia("wan0", "192.168.1.1", 0)
	w.defaultVia("wan1", "192.168.1.1", 100)
	w.tun("tun7", "203.0.113.9/32", unix.IFF_TUN)
	w.defaultVia("tun7", "", 300)
	w.tap()
	return uplinks.NewTracker(uplinks.TrackerConfig{TapName: "tapgw0", AssumeHealthy: true}), w.capture()
}

func (w *world) tap() *os.File {
	w.t.Helper()
	return w.tun("tapgw0", "198.18.73.1/30", unix.IFF_TAP)
}

func (w *world) capture() uplinks.Capture {
	return uplinks.Capture{TapIndex: w.link("tapgw0").Attrs().Index, TapAddress: netip.MustParseAddr("198.18.73.1"),
		TapGateway: netip.MustParseAddr("198.18.73.2")}
}

// plan reads and plans as the daemon does.
func (w *world) plan(tr *uplinks.Tracker, c uplinks.Capture) uplinks.Wanted {
	w.t.Helper()
	f := w.read()
	s, _ := tr.Update(time.Now(), f)
	return uplinks.Plan(s, f, c)
}

// apply makes the kernel what is planned.
func (w *world) apply(rec *Reconciler, tr *uplinks.Tracker, c uplinks.Capture) Report {
	w.t.Helper()
	report, err := rec.Apply(w.plan(tr, c))
	w.must(err)
	return report
}

// undo takes back what rec did.
func (w *world) undo(rec *Reconciler, demoted []Record) {
	w.t.Helper()
	w.must(rec.Cleanup())
	w.must(rec.Restore(demoted))
}

// expectNoTrace applies what is planned and takes it back.
func (w *world) expectNoTrace(tr *uplinks.Tracker, c uplinks.Capture) {
	w.t.Helper()
	before := w.objects()
	rec := NewReconciler(w.k)
	w.undo(rec, w.apply(rec, tr, c).Demoted)
	w.sameObjects(before)
}

// leavesBy asks the kernel which device a packet takes.
func (w *world) leavesBy(src, dst string) string {
	w.t.Helper()
	o := &netlink.RouteGetOptions{}
	if src != "" {
		o.SrcAddr = net.ParseIP(src)
	}
	routes, err := w.h.RouteGetWithOptions(net.ParseIP(dst), o)
	w.must(err)
	link, err := w.h.LinkByIndex(routes[0].LinkIndex)
	w.must(err)
	return link.Attrs().Name
}

func (w *world) expectLeaving(want map[[2]string]string) {
	w.t.Helper()
	for flow, device := range want {
		if got := w.leavesBy(flow[0], flow[1]); got != device {
			w.t.Errorf("from %q to %s leaves by %s, want %s", flow[0], flow[1], got, device)
		}
	}
}
