package lab_test

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestStateStaysTheSameUnderTraffic(t *testing.T) {
	topo := masqueraded(t, lab.Options{InnerRouter: true})
	before := labtest.Snapshot(t, topo.Gateway)
	transferAll(t, topo.InnerHost.Namespace)
	labtest.Must(t, topo.Uplinks[0].Link.Cut())
	labtest.Must(t, topo.Uplinks[0].Link.Mend())
	labtest.Unchanged(t, topo.Gateway, before)
}

func TestStateShowsEachObject(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	gw := topo.Gateway
	h := gw.Handle()
	wan, err := h.LinkByName("wan1")
	labtest.Must(t, err)
	index := wan.Attrs().Index
	route := &netlink.Route{Table: 7301, Protocol: 73, LinkIndex: index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}}
	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.SuppressPrefixlen, rule.Family = 5099, unix.RT_TABLE_MAIN, 0, unix.AF_INET
	neighbour := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.IPv4(100, 64, 1, 9).To4(),
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	address, err := netlink.ParseAddr("192.0.2.9/32")
	labtest.Must(t, err)
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	for name, tc := range map[string]struct {
		do, undo func() error
		line     string // begins one of the added lines
	}{
		"route":     {func() error { return h.RouteAdd(route) }, func() error { return h.RouteDel(route) }, "route 192.0.2.0/24 table 7301"},
		"rule":      {func() error { return h.RuleAdd(rule) }, func() error { return h.RuleDel(rule) }, "rule 5099"},
		"neighbour": {func() error { return h.NeighSet(neighbour) }, func() error { return h.NeighDel(neighbour) }, "neighbour wan1 100.64.1.9"},
		"address":   {func() error { return h.AddrAdd(wan, address) }, func() error { return h.AddrDel(wan, address) }, "address wan1 192.0.2.9/32"},
		"qdisc":     {func() error { return h.QdiscAdd(clsact) }, func() error { return h.QdiscDel(clsact) }, "qdisc wan1 clsact"},
		"ruleset":   {func() error { return gw.SetFaults(lab.RandomLoss(0.5)) }, func() error { return gw.SetFaults() }, "nft rule"},
		"netdev ruleset": {func() error { return gw.Silence("wan1", true) }, func() error { return gw.Silence("wan1", false) },
			"nft chain 5 lab_silence"},
		"sysctl": {func() error { return gw.Sysctl("net/ipv4/conf/wan1/rp_filter", "2") },
			func() error { return gw.Sysctl("net/ipv4/conf/wan1/rp_filter", "0") }, "sysctl ipv4/conf/wan1/rp_filter = 2"},
		"mtu": {func() error { return h.LinkSetMTU(wan, 1400) }, func() error { return h.LinkSetMTU(wan, 1500) }, "link wan1"},
	} {
		t.Run(name, func(t *testing.T) {
			before := labtest.Snapshot(t, gw)
			labtest.Must(t, tc.do())
			_, added := lab.Diff(before, labtest.Snapshot(t, gw))
			if !slices.ContainsFunc(added, func(line string) bool { return strings.HasPrefix(line, tc.line) }) {
				t.Errorf("no line %q in %q", tc.line, added)
			}
			labtest.Must(t, tc.undo())
			labtest.Unchanged(t, gw, before)
		})
	}
}

func TestDiffCountsRepeatedLines(t *testing.T) {
	removed, added := lab.Diff(lab.State{"a", "a", "b"}, lab.State{"a", "c"})
	if !slices.Equal(removed, []string{"a", "b"}) || !slices.Equal(added, []string{"c"}) {
		t.Errorf("removed %q, added %q", removed, added)
	}
}

func TestOffloadsAreHeld(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	for _, want := range []lab.Offloads{{}, {TxChecksum: true, RxChecksum: true, TSO: true, GSO: true, GRO: true}} {
		labtest.Must(t, topo.Uplinks[0].Link.SetOffloads(want))
		if got, err := topo.Gateway.ReadOffloads("wan1"); err != nil || got != want {
			t.Errorf("got %+v (%v), want %+v", got, err, want)
		}
	}
}
