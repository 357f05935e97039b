package e2e

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostModemAlias: the address that people give an uplink so that they reach its modem is used for nothing else, and
// neither that address nor a default route that comes and goes ends a session.
func TestHostModemAlias(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 6, Uplinks: make([]lab.UplinkOptions, 1)}, "")
	u := w.Uplinks[0]
	kept := keepAlive(t, w.lan, u.Addr())
	alias := modemAddr.Next()
	addTo(t, u.ISP, lab.DeviceCustomer, modemAddr)
	addTo(t, w.Gateway, u.Device, alias)
	servers, err := lab.StartServers(u.ISP)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
	visit := func(when string) {
		t.Helper()
		kept(when)
		for _, host := range w.Hosts {
			outside, err := host.WhoAmI(labtest.Context(t), lab.ServerAddrs[0])
			labtest.Must(t, err)
			if outside.Addr() != u.Addr() {
				t.Errorf("%s: %s left from %s", when, host.Addr, outside)
			}
		}
		if got := w.uplink(u.Device).Addresses; !slices.Equal(got, []netip.Addr{u.Addr()}) {
			t.Errorf("%s: the addresses are %s", when, got)
		}
	}
	visit("with the alias")
	for _, ns := range []*lab.Namespace{w.Gateway, w.lan} {
		testNeighbour(t, ns, modemAddr, alias)
	}
	for range 3 {
		putBack := w.takeDefault(u)
		visit("without the default route")
		putBack()
		visit("with the default route again")
	}
}

// keepAlive opens a UDP session and returns what fails the test unless it is still the same, from an outside address.
func keepAlive(t *testing.T, ns *lab.Namespace, as netip.Addr) func(when string) {
	t.Helper()
	conn, err := ns.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	first := netip.AddrPort{}
	return func(when string) {
		t.Helper()
		seen, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "still there?")
		labtest.Must(t, err)
		if !first.IsValid() {
			first = seen
		}
		if seen != first || seen.Addr() != as {
			t.Errorf("%s: the session left from %s, before from %s", when, seen, first)
		}
	}
}

// takeDefault takes an uplink's default route away, and returns what puts it back.
func (w world) takeDefault(u *lab.Uplink) (putBack func()) {
	w.t.Helper()
	h := w.Gateway.Handle()
	index, err := w.Gateway.Index(u.Device)
	labtest.Must(w.t, err)
	routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: index, Table: 254}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	labtest.Must(w.t, err)
	i := slices.IndexFunc(routes, func(r netlink.Route) bool { return r.Gw != nil })
	if i < 0 {
		w.t.Fatalf("no default route in %v", routes)
	}
	labtest.Must(w.t, h.RouteDel(&routes[i]))
	return func() { w.t.Helper(); labtest.Must(w.t, h.RouteAdd(&routes[i])) }
}
