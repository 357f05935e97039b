package daemon

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// dualHost is a daemon on a host with one uplink that has IPv4, and IPv6 as a router advertises it.
type dualHost struct {
	*Daemon
	t   *testing.T
	ns  *lab.Namespace
	wan netlink.Link
}

func newDualHost(t *testing.T) *dualHost {
	t.Helper()
	h := &dualHost{Daemon: newTestDaemon(t), t: t, ns: labtest.Namespace(t, "host")}
	testUplink(t, h.ns)
	var err error
	h.wan, err = h.ns.Handle().LinkByName("wan")
	labtest.Must(t, err)
	h.advertise("2001:db8:1::2/64", math.MaxUint32)
	for _, r := range []netlink.Route{
		{LinkIndex: h.wan.Attrs().Index, Gw: net.ParseIP("192.0.2.1"), Priority: 100},
		{LinkIndex: h.wan.Attrs().Index, Gw: net.ParseIP("fe80::1"), Priority: 1024, Protocol: unix.RTPROT_RA},
	} {
		labtest.Must(t, h.ns.Handle().RouteAdd(&r))
	}
	return h
}

// awaitLocalRoute waits until the kernel has done what it does for a new address.
func (h *dualHost) awaitLocalRoute(dst string) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		local, err := h.ns.Handle().RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		labtest.Must(h.t, err)
		if slices.ContainsFunc(local, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.String() == dst }) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no local route to %s", dst)
		}
	}
}

// start opens what the control loop needs.
func (h *dualHost) start() {
	h.t.Helper()
	labtest.Must(h.t, h.ns.Do(func() error { return h.openInside(h.t) }))
	h.t.Cleanup(func() { labtest.Must(h.t, h.ns.Do(h.close)) })
	h.look()
}

// look converges.
func (h *dualHost) look() {
	h.t.Helper()
	labtest.Must(h.t, h.ns.Do(func() error { return h.converge(h.t.Context()) }))
}

// advertise has the kernel take an address for so many seconds of preference, as of a router's prefix.
func (h *dualHost) advertise(address string, preferred int) {
	h.t.Helper()
	a, err := netlink.ParseAddr(address)
	labtest.Must(h.t, err)
	a.Flags, a.ValidLft, a.PreferedLft = unix.IFA_F_NODAD, math.MaxUint32, preferred
	labtest.Must(h.t, h.ns.Handle().AddrReplace(h.wan, a))
}

// onTAP are the IPv6 addresses there, and whether the default route leads there.
func (h *dualHost) onTAP() (current, earlier []netip.Addr, routed bool) {
	h.t.Helper()
	f, err := h.kernel.Read()
	labtest.Must(h.t, err)
	index := h.pumps.tap.Load().Index()
	for _, a := range f.V6.Addresses {
		switch {
		case a.Index == index && a.Passing:
			earlier = append(earlier, a.Prefix.Addr())
		case a.Index == index:
			current = append(current, a.Prefix.Addr())
		}
	}
	for _, r := range f.V6.Routes {
		routed = routed || r.Index == index && r.Dst.Bits() == 0 && r.Metric == uplinks.CaptureMetric && r.Gateway == gatewayV6
	}
	return current, earlier, routed
}

func (h *dualHost) expect(when, prefix string, earlier ...netip.Addr) netip.Addr {
	h.t.Helper()
	current, deprecated, routed := h.onTAP()
	if prefix == "" {
		if len(current) > 0 || routed {
			h.t.Errorf("%s: addresses %v, routed %t", when, current, routed)
		}
		return netip.Addr{}
	}
	if len(current) != 1 || !netip.MustParsePrefix(prefix).Contains(current[0]) || !slices.Equal(deprecated, earlier) || !routed {
		h.t.Fatalf("%s: addresses %v and %v, routed %t; expected one in %s, and %v", when, current, deprecated, routed, prefix, earlier)
	}
	return current[0]
}

// TestTAPAddressFollowsPrefixes: a new prefix gives a new address as soon as the old one is deprecated, and connections keep
// the old one. The route stays, and nothing of that is a repair or changes an uplink.
func TestTAPAddressFollowsPrefixes(t *testing.T) {
	h := newDualHost(t)
	events, stop := h.journal.Subscribe()
	defer stop()
	h.start()
	begun := time.Now()
	first := h.expect("at first", "2001:db8:1::/64")
	h.advertise("2001:db8:2::2/64", math.MaxUint32)
	h.look()
	h.expect("another prefix beside it", "2001:db8:1::/64")
	h.advertise("2001:db8:1::2/64", 0)
	h.look()
	second := h.expect("the old one is deprecated", "2001:db8:2::/64", first)
	labtest.Must(t, h.ns.Handle().AddrDel(h.wan, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("2001:db8:1::2"), Mask: net.CIDRMask(64, 128)}}))
	h.look()
	h.expect("the old one is gone", "2001:db8:2::/64", first)
	if got := h.hostOn(uplinks.IPv6); got != second {
		t.Errorf("the gateway's host is %s, expected %s", got, second)
	}
	for len(events) > 0 {
		if e := <-events; e.Time.After(begun) && e.Kind == api.EventRepair {
			t.Errorf("told: %+v", e)
		}
	}

	labtest.Must(t, h.ns.Handle().AddrDel(h.wan, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("2001:db8:2::2"), Mask: net.CIDRMask(64, 128)}}))
	h.look()
	h.expect("no prefix at all", "")
	h.advertise("2001:db8:2::2/64", math.MaxUint32)
	h.look()
	if again := h.expect("the prefix is back", "2001:db8:2::/64", first); again != second {
		t.Errorf("got %s after %s", again, second)
	}
}

// TestCaptureOfIPv6LeavesNothing behind after a clean stop.
func TestCaptureOfIPv6LeavesNothing(t *testing.T) {
	h := newDualHost(t)
	h.awaitLocalRoute("2001:db8:1::2/128")
	before := labtest.Snapshot(t, h.ns)
	t.Cleanup(func() { labtest.Unchanged(t, h.ns, before) }) // after the daemon's
	h.start()
	h.expect("captured", "2001:db8:1::/64")
}

// TestConnectionsOfADroppedTAPAddressEnd: of the fifth address before, from which nothing comes back any more.
func TestConnectionsOfADroppedTAPAddressEnd(t *testing.T) {
	h := newDualHost(t)
	lo, err := h.ns.Handle().LinkByName("lo")
	labtest.Must(t, err)
	labtest.Must(t, h.ns.Handle().AddrAdd(lo, &netlink.Addr{
		IPNet: &net.IPNet{IP: net.ParseIP("fd00:99::1"), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD,
	}))
	h.start()
	server, err := h.ns.Listen("tcp6", "[fd00:99::1]:0")
	labtest.Must(t, err)
	defer server.Close()
	first := h.expect("captured", "2001:db8:1::/64")
	conn := dialFrom(t, h.ns, "tcp6", &net.TCPAddr{IP: first.AsSlice()}, server.Addr().String())
	for n := 2; n <= 6; n++ {
		if _, earlier, _ := h.onTAP(); n > 2 && !slices.Contains(earlier, first) {
			t.Fatalf("before prefix %d: %v", n, earlier)
		}
		h.advertise(fmt.Sprintf("2001:db8:%d::2/64", n), math.MaxUint32)
		h.advertise(fmt.Sprintf("2001:db8:%d::2/64", n-1), 0)
		h.look()
	}
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the application hears %v", err)
	}
}

// TestTAPAddressesOfAKilledDaemon are the next one's, the first in a prefix that is still there as before; and where that does not
// capture IPv6, their connections end.
func TestTAPAddressesOfAKilledDaemon(t *testing.T) {
	before, current := netip.MustParseAddr("2001:db8:9::77"), netip.MustParseAddr("2001:db8:1::77")
	for _, captured := range []bool{true, false} {
		h := newDualHost(t)
		if !captured {
			h.tables[uplinks.IPv6] = nil
		}
		labtest.Must(t, h.ns.Do(func() error {
			if err := h.openInside(h.t); err != nil {
				return err
			}
			own := netip.MustParseAddr("2001:db8:1::2") // the uplink's by now
			if err := h.host.Put(tapAddressesKey, []netip.Addr{own, current, before, netip.MustParseAddr("::ffff:192.0.2.1")}); err != nil {
				return err
			}
			f, err := h.kernel.Read()
			return errors.Join(err, h.adoptTAPAddresses(f))
		}))
		t.Cleanup(func() { labtest.Must(t, h.ns.Do(h.close)) })
		if captured && !slices.Equal(h.tapIPv6().Earlier, []netip.Addr{current, before}) {
			t.Errorf("adopted %v", h.tapIPv6().Earlier)
		}
		h.look()
		var left []netip.Addr
		if found, err := h.host.Get(tapAddressesKey, &left); err != nil || found != captured {
			t.Errorf("captured %t: the journal has %v, %v", captured, left, err)
		}
		if !captured {
			h.expect("not captured", "")
		} else if a := h.expect("after the kill", "2001:db8:1::/64", before); a != current {
			t.Errorf("got %s after %s", a, current)
		}
	}
}

// TestFallbackOfWhatIsCaptured: IPv6 of the LAN that goes its own way, by an uplink without an address of its own, is not touched.
func TestFallbackOfWhatIsCaptured(t *testing.T) {
	h := newDualHost(t)
	router := &netlink.Route{LinkIndex: h.wan.Attrs().Index, Gw: net.ParseIP("fe80::1"), Priority: 1024, Protocol: unix.RTPROT_RA}
	labtest.Must(t, h.ns.Handle().RouteDel(router))
	_, err := lab.Connect(lab.End{NS: h.ns, Device: "lan", Prefix: netip.MustParsePrefix("192.168.1.1/24")},
		lab.End{NS: labtest.Namespace(t, "client"), Device: "eth0", Prefix: netip.MustParsePrefix("192.168.1.2/24")}, 0)
	labtest.Must(t, err)
	lan, err := h.ns.Handle().LinkByName("lan")
	labtest.Must(t, err)
	labtest.Must(t, h.ns.Handle().NeighSet(&netlink.Neigh{
		LinkIndex: lan.Attrs().Index, State: unix.NUD_STALE, IP: net.ParseIP("192.168.1.2"), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2},
	}))
	h.start()
	fallsBack := func(when, table string, want bool) {
		t.Helper()
		tables, err := h.rules.Left()
		labtest.Must(t, err)
		if slices.Contains(tables, table) != want {
			t.Errorf("%s: %v", when, tables)
		}
	}
	fallsBack("no router of IPv6", "table ip tapgw_fallback", true)
	fallsBack("no router of IPv6", "table ip6 tapgw_fallback", false)
	labtest.Must(t, h.ns.Handle().RouteAdd(router))
	h.look()
	fallsBack("captured", "table ip6 tapgw_fallback", true)
}

func TestIPv6IsNotCapturedAgainstTheConfiguration(t *testing.T) {
	h := newDualHost(t)
	h.tables[uplinks.IPv6] = nil // as openTables leaves it with tap.ipv6: false
	h.start()
	h.expect("switched off", "")
}

// TestConnectionsOfTheTAPEnd: from its IPv6 addresses, which the journal knows after a crash.
func TestConnectionsOfTheTAPEnd(t *testing.T) {
	h := newDualHost(t)
	h.start()
	host := h.expect("captured", "2001:db8:1::/64")
	server, err := h.ns.Listen("tcp6", "[2001:db8:1::2]:0")
	labtest.Must(t, err)
	defer server.Close()
	conn := dialFrom(t, h.ns, "tcp6", &net.TCPAddr{IP: host.AsSlice()}, server.Addr().String())
	left, err := tapAddressesLeft(h.host)
	if err != nil || !slices.Equal(left, []netip.Addr{host}) {
		t.Errorf("the journal has %v, expected %s; %v", left, host, err)
	}
	closed := 0
	labtest.Must(t, h.ns.Do(func() (err error) { closed, err = closeSockets(host); return err }))
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); closed != 1 || !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("closed %d, the application hears %v", closed, err)
	}
}
