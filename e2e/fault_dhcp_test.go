package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Addresses that the first provider leases.
var (
	leaseAddr  = netip.MustParseAddr("100.64.1.50")
	secondAddr = netip.MustParseAddr("100.64.1.60")
)

// beginLeased is begin with a DHCP client on the first uplink.
func beginLeased(t testing.TB) (world, *leased) {
	t.Helper()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	l := lease(t, topology, topology.Uplinks[0], leaseAddr)
	g := start(t, topology.Gateway, inTurn)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	return w, l
}

// TestFault18_RenewedLease: a lease that is renewed is no event, and nothing is lost. The renewal itself leaves by its uplink, not by
// the TAP.
func TestFault18_RenewedLease(t *testing.T) {
	t.Parallel()
	w, l := beginLeased(t)
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	dhcp := func(p *lab.Packet) bool { return p.UDP != nil && (p.UDP.DstPort == 67 || p.UDP.DstPort == 68) }
	watch(t, w.Gateway, "tapgw0", "of DHCP", dhcp)
	watch(t, w.Gateway, "wan2", "of DHCP", dhcp)
	online(t, w.Gateway) // what is watched must see something
	visits := keepVisiting(t, w.lan)
	begun := time.Now()
	for i := range 3 {
		l.renew()
		eventually(t, "a renewal", func() bool { return strings.Count(l.told(), "renew "+leaseAddr.String()) > i })
		labtest.Must(t, onFirst.talk())
		visits.by(leaseAddr, time.Now())
	}
	for _, v := range visits.stop() {
		if v.err != nil {
			t.Errorf("a session failed %s after the first renewal: %v", v.begun.Sub(begun), v.err)
		}
	}
	labtest.Must(t, onSecond.talk())
	w.events.none(0, begun, func(e api.Event) bool { return e.Uplink == "wan1" || isRepair(e) })
}

// TestFault19_RenumberedLease: the server refuses to renew and leases another address. Only that uplink's sessions end.
func TestFault19_RenumberedLease(t *testing.T) {
	t.Parallel()
	w, l := beginLeased(t)
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	begun := time.Now()
	l.serve(secondAddr, "opt router "+l.u.NextHop().String())
	l.renew()
	l.await("bound", secondAddr)
	w.events.await("new address", begun, func(e api.Event) bool {
		return e.Kind == api.EventAddresses && e.Uplink == "wan1" && strings.Contains(e.Message, secondAddr.String())
	})
	visits := keepVisiting(t, w.lan)
	visits.by(secondAddr, begun)
	labtest.Must(t, onSecond.talk())
	if onFirst.talk() == nil {
		t.Error("a session of the lost address goes on")
	}
	expectOutage(t, visits.stop(), begun, 0)
	w.events.none(0, begun, func(e api.Event) bool { return e.Uplink == "wan2" || isRepair(e) })
}

// TestFault20_LeaseLost: when the server is gone and the lease ends the uplink is down, and is back without help.
func TestFault20_LeaseLost(t *testing.T) {
	t.Parallel()
	w, l := beginLeased(t)
	onSecond := w.connect(w.lan, "wan2")
	begun := time.Now()
	l.silence()
	down, ok := w.events.within(2*leaseTime*time.Second, begun, func(e api.Event) bool { return e.Uplink == "wan1" && e.To == api.StateDown })
	if !ok || !contains(down.Message, "no address") {
		t.Fatalf("told of the lost lease: %+v", down.Event)
	}
	visits := keepVisiting(t, w.lan)
	visits.by(w.Uplinks[1].Addr(), down.at)
	back := time.Now()
	l.serve(leaseAddr, "opt router "+l.u.NextHop().String())
	w.events.state("wan1", api.StateUp, back)
	visits.by(leaseAddr, back)
	labtest.Must(t, onSecond.talk())
	expectOutage(t, visits.stop(), begun, 0)
}

// TestFault21_OptionsOfALease: another router, by option 3 and by option 121 with a route of its own beside it, and none at all.
func TestFault21_OptionsOfALease(t *testing.T) {
	t.Parallel()
	w, l := beginLeased(t)
	onFirst := w.connect(w.lan, "wan1")
	routers := []netip.Addr{netip.MustParseAddr("100.64.1.253"), netip.MustParseAddr("100.64.1.254")}
	for _, a := range routers {
		addTo(t, l.u.ISP, lab.DeviceCustomer, a)
	}
	service := netip.MustParsePrefix("192.0.2.0/24")
	for i, options := range [][]string{
		{"opt router " + routers[0].String()},
		{"opt router " + routers[0].String(), fmt.Sprintf("opt staticroutes %s %s, 0.0.0.0/0 %s", service, l.u.NextHop(), routers[1])},
	} {
		begun := time.Now()
		l.serve(leaseAddr, options...)
		l.renew()
		w.events.await("the router", begun, func(e api.Event) bool {
			return e.Kind == api.EventGateway && e.Uplink == "wan1" && contains(e.Message, routers[i].String())
		})
		labtest.Must(t, onFirst.talk())
	}
	routes, err := w.Gateway.Handle().RouteGet(service.Addr().Next().AsSlice())
	labtest.Must(t, err)
	if wan1, err := w.Gateway.Index("wan1"); err != nil || routes[0].LinkIndex != wan1 || !routes[0].Gw.Equal(l.u.NextHop().AsSlice()) {
		t.Errorf("the provider's own network is reached by %+v", routes[0])
	}

	begun := time.Now()
	l.serve(leaseAddr)
	l.renew()
	eventually(t, "a lease without a router", func() bool { return defaultsBy(t, w.Gateway, "wan1") == 0 })
	labtest.Must(t, onFirst.talk()) // the router that is known is still there
	visits := keepVisiting(t, w.lan)
	visits.by(leaseAddr, begun)
	expectOutage(t, visits.stop(), begun, 0)
}

// defaultsBy counts the default routes of table main by a device that are not ours.
func defaultsBy(t testing.TB, ns *lab.Namespace, device string) (n int) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	routes, err := ns.Handle().RouteList(nil, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, r := range routes {
		if ones := 0; r.LinkIndex == index && r.Table == unix.RT_TABLE_MAIN {
			if r.Dst != nil {
				ones, _ = r.Dst.Mask.Size()
			}
			if ones == 0 {
				n++
			}
		}
	}
	return n
}

// TestFault22_EventsInAnyOrder: address and route of an uplink come in either order, with time in between in which hosts go on
// sending. No session stays with an address that is gone.
func TestFault22_EventsInAnyOrder(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	first, handle := w.Uplinks[0], w.Gateway.Handle()
	link, err := handle.LinkByName(first.Device)
	labtest.Must(t, err)
	conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	old := first.Link.Near.Prefix
	route := func(onLink bool) error {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: first.NextHop().AsSlice(), Priority: first.Metric()}
		if onLink {
			r.Flags = int(netlink.FLAG_ONLINK)
		}
		return handle.RouteReplace(r)
	}
	for i, order := range []string{"address first", "route first"} {
		next := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 1, byte(70 + i)}), 24)
		address := func() error { return handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(next)}) }
		steps := []func() error{address, func() error { return route(false) }}
		if i == 1 {
			steps = []func() error{func() error { return route(true) }, address}
		}
		begun := time.Now()
		labtest.Must(t, handle.AddrDel(link, &netlink.Addr{IPNet: ipNet(old)}))
		w.events.state(first.Device, api.StateDown, begun)
		for _, step := range steps {
			for range 5 {
				if outside, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "in between"); err != nil || outside.Addr() != w.Uplinks[1].Addr() {
					t.Errorf("%s: in between by %s (%v)", order, outside, err)
				}
			}
			labtest.Must(t, step())
		}
		w.events.state(first.Device, api.StateUp, begun)
		visits := keepVisiting(t, w.lan)
		visits.by(next.Addr(), begun)
		expectOutage(t, visits.stop(), begun, 0)
		if _, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "afterwards"); err != nil {
			t.Errorf("%s: a session of before: %v", order, err)
		}
		old = next
	}
}
