package daemon

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/hostconf"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

func TestDemotedRoutesAreRestoredAndForgotten(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	labtest.Must(t, addDefault(ns))
	undo := filepath.Join(t.TempDir(), "undo.json")
	labtest.Must(t, ns.Do(func() error {
		kernel, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer kernel.Close()
		routes := rtnl.NewReconciler(kernel)
		guard, err := hostconf.Open(undo)
		if err != nil {
			return err
		}
		return demoteAndRestore(t, kernel, routes, guard, undo)
	}))
}

var everywhere = &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}

// addDefault makes a device with the default route of metric 0 that ifupdown or dhclient would add.
func addDefault(ns *lab.Namespace) error {
	wan := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wan"}, PeerName: "isp"}
	if err := ns.Handle().LinkAdd(wan); err != nil {
		return err
	}
	if err := ns.Handle().LinkSetUp(wan); err != nil {
		return err
	}
	return ns.Handle().RouteAdd(&netlink.Route{LinkIndex: wan.Index, Dst: everywhere, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_BOOT})
}

func demoteAndRestore(t *testing.T, kernel *rtnl.Kernel, routes *rtnl.Reconciler, guard *hostconf.Guard, undo string) error {
	original, err := defaultRoute(kernel)
	if err != nil {
		return err
	}
	report, err := routes.Apply(uplinks.Wanted{Demote: []uplinks.Demotion{{Route: original, Metric: 76}}})
	if err != nil {
		return err
	}
	for range 3 { // as when a DHCP client adds its route at each renewal
		if err := recordDemoted(guard, report.Demoted); err != nil {
			return err
		}
	}
	if records, err := demoted(guard); err != nil || len(records) != 1 {
		t.Errorf("journal has %d records (%v), want 1", len(records), err)
	}
	if err := restoreDemoted(routes, guard); err != nil {
		return err
	}
	if after, err := defaultRoute(kernel); err != nil || after != original {
		t.Errorf("after the end: %+v (%v), want %+v", after, err, original)
	}
	if _, err := os.Stat(undo); !os.IsNotExist(err) {
		t.Errorf("the journal is left behind: %v", err)
	}
	return nil
}

func defaultRoute(kernel *rtnl.Kernel) (uplinks.Route, error) {
	facts, err := kernel.Read()
	for _, r := range facts.Routes {
		if r.Dst == netip.PrefixFrom(netip.IPv4Unspecified(), 0) {
			return r, err
		}
	}
	return uplinks.Route{}, err
}
