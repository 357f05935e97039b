package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// withoutIPv6 stops or resumes IPv6 behind an uplink, while its link and IPv4 go on.
func withoutIPv6(t testing.TB, u *lab.Uplink, off bool) {
	t.Helper()
	value := "1"
	if off {
		value = "0"
	}
	labtest.Must(t, u.ISP.Sysctl("net/ipv6/conf/all/forwarding", value))
}

// TestIPv6Failover: when IPv6 of one uplink fails, its new sessions and datagrams take the other, and IPv4 goes on by both; it is
// used again when it returns.
func TestIPv6Failover(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	first, second := w.Uplinks[0], w.Uplinks[1]
	w.family = overIPv4
	before := w.connect(w.lan, first.Device)
	w.family = overIPv6
	endpoint := mapUDP(t, w, w.lan, first)
	kept := w.connect(w.lan, second.Device)
	visits := keepVisitingOver(overIPv6, t, w.lan)
	begun := time.Now()
	withoutIPv6(t, first, true)
	w.ipv6Is(first.Device, api.StateDown, begun)
	seen, err := lab.AskUDP(labtest.Context(t), endpoint, w.family.servers[0], "still there?")
	if err != nil || seen.Addr() != second.AddrV6() {
		t.Errorf("the datagrams are seen as %s (%v)", seen, err)
	}
	for range 8 {
		if v := visitFor(w.lan, w.family.servers[0], visitPatience); v.err != nil || v.outside != second.AddrV6() {
			t.Errorf("a session is seen as %s (%v)", v.outside, v.err)
		}
	}
	labtest.Must(t, before.talk())
	labtest.Must(t, kept.talk())
	used := map[netip.Addr]bool{}
	for range 8 {
		v := visitFor(w.lan, lab.ServerAddrs[0], visitPatience)
		labtest.Must(t, v.err)
		used[v.outside] = true
	}
	if !used[first.Addr()] || !used[second.Addr()] {
		t.Errorf("sessions of IPv4 are seen as %v", used)
	}
	healed := time.Now()
	withoutIPv6(t, first, false)
	w.ipv6Is(first.Device, api.StateUp, healed)
	visits.by(first.AddrV6(), healed)
	expectOutage(t, visits.stop(), begun, blackholeBound)
	w.events.none(0, begun, func(e api.Event) bool { return e.Kind == api.EventState && e.Family == api.FamilyIPv4 })
}

// TestIPv6OfOneUplink: an uplink without IPv6 carries IPv4 alone, until its router tells of IPv6.
func TestIPv6OfOneUplink(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	second := w.Uplinks[1]
	labtest.Must(t, second.RemoveRouterV6())
	eventually(t, "an uplink without IPv6", func() bool { return len(w.uplink(second.Device).IPv6.Addresses) == 0 })
	for range 8 {
		if v := visitFor(w.lan, w.family.servers[0], visitPatience); v.err != nil || v.outside != w.Uplinks[0].AddrV6() {
			t.Errorf("a session is seen as %s (%v)", v.outside, v.err)
		}
	}
	if u := w.uplink(second.Device); u.State != api.StateUp {
		t.Errorf("IPv4 is %s", u.State)
	}
	begun := time.Now()
	labtest.Must(t, second.AddRouterV6())
	visits := keepVisitingOver(overIPv6, t, w.lan)
	visits.by(second.AddrV6(), begun)
	visits.stop()
}

// life is of what routers advertise in tests: longer than those.
const life = time.Hour

// advertised is a prefix that a router tells with a preferred lifetime.
func advertised(p netip.Prefix, preferred time.Duration) lab.AdvertisedPrefix {
	return lab.AdvertisedPrefix{Prefix: p, Preferred: preferred, Valid: life}
}

// TestFault27_RouterAdvertisements: what routers tell is followed while we run, also as a router for a LAN: a prefix that is replaced
// gives new sessions another address, connections from the one before go on, and are told when it is gone.
func TestFault27_RouterAdvertisements(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)}, inTurn)
	u := w.Uplinks[0]
	labtest.Must(t, u.RemoveRouterV6())
	labtest.Must(t, u.Advertise(life, advertised(u.PrefixV6(), life)))
	visits := keepVisitingOver(overIPv6, t, w.lan)
	eventually(t, "an address that was advertised", func() bool {
		v := w.uplink(u.Device).IPv6
		return v.State == api.StateUp && len(v.Addresses) == 1 && v.Addresses[0] != u.AddrV6()
	})
	first := visits.from(u.PrefixV6(), time.Now())
	host := w.dialFrom("tcp", netip.Addr{}, lab.PortTCPEcho)
	lan := w.connect(w.lan, u.Device)
	labtest.Must(t, host.talk())

	second, err := u.Delegate()
	labtest.Must(t, err)
	labtest.Must(t, u.Advertise(life, advertised(u.PrefixV6(), 0), advertised(second, life)))
	visits.from(second, time.Now())
	for range 5 {
		labtest.Must(t, host.talk()) // RFC 4862 §5.5.4
		labtest.Must(t, lan.talk())
	}

	begun := time.Now()
	changeAddress(t, w.Gateway, u.Device, netip.PrefixFrom(first, 64), (*netlink.Handle).AddrDel)
	for name, c := range map[string]talker{"host": host, "lan": lan} {
		var err error
		eventually(t, "the end of a connection of the "+name, func() bool { err = c.talk(); return err != nil })
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: a connection from an address that is gone was told: %v", name, err)
		}
	}
	w.ipv6Is(u.Device, api.StateUp, begun)
	again := w.dialFrom("tcp", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, again.talk())
	if from := local(again).Addr(); !second.Contains(from) {
		t.Errorf("the host connects from %s, the prefix is %s", from, second)
	}
	visits.stop()
}

// from waits until a session begun since went by an address of a prefix, and returns that.
func (v *visits) from(p netip.Prefix, since time.Time) (outside netip.Addr) {
	v.t.Helper()
	eventually(v.t, "a session from "+p.String(), func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, one := range v.list {
			if one.err == nil && p.Contains(one.outside) && !one.begun.Before(since) {
				outside = one.outside
				return true
			}
		}
		return false
	})
	return outside
}

// TestIPv6StopLeavesNoTrace: every object is as it was.
func TestIPv6StopLeavesNoTrace(t *testing.T) {
	t.Parallel()
	w, before := beginV6From(t, lab.Options{}, inTurn)
	expectAllUplinks(t, w, visitAll(t, w, w.lan))
	expectAllUplinks(t, w, visitAll(t, w, w.Gateway))
	w.stop()
	if w.err != nil {
		t.Errorf("exit: %v", w.err)
	}
	labtest.Unchanged(t, w.Gateway, before)
}

// TestIPv6Kill: after a crash the host and its LAN are online again at once, by plain routing, and `tapgw cleanup` removes the rest.
func TestIPv6Kill(t *testing.T) {
	t.Parallel()
	w, before := beginV6From(t, lab.Options{}, inTurn)
	expectAllUplinks(t, w, visitAll(t, w, w.lan))
	w.kill()
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		v := visitFor(ns, w.family.servers[0], visitPatience)
		if v.err != nil || v.outside != w.Uplinks[0].AddrV6() && v.outside != w.Uplinks[1].AddrV6() {
			t.Errorf("%s: seen as %s (%v)", name, v.outside, v.err)
		}
	}
	w.expectCleanup(before)
}

// TestMW13_FlowsKeepTheirUplink: inside endpoints are seen with one address of one uplink by all remotes, and together they use the
// prefixes of all uplinks; connections go on where they began.
func TestMW13_FlowsKeepTheirUplink(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	for _, ns := range []*lab.Namespace{w.Gateway, w.lan} {
		testUDP(t, w, ns)
	}
	conns := []talker{w.connect(w.lan, w.Uplinks[0].Device), w.connect(w.lan, w.Uplinks[1].Device)}
	for range 20 {
		for _, c := range conns {
			labtest.Must(t, c.talk())
			if s, ok := w.session("tcp", portOf(c)); !ok || s.Uplink != c.uplink {
				t.Errorf("the connection by %s is by %s", c.uplink, s.Uplink)
			}
		}
	}
}

// TestIPv6NewMTUIsTold is TestMW11_NewMTUIsTold, when IPv6 alone fails.
func TestIPv6NewMTUIsTold(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {MTU: smallMTU}}}, preferFirst)
	flows := map[string]net.Conn{}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp6", netip.AddrPortFrom(w.family.servers[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		defer c.Close()
		awaitPathMTU(t, c, 1500)
		flows[name] = c
	}
	begun := time.Now()
	withoutIPv6(t, w.Uplinks[0], true)
	w.ipv6Is("wan1", api.StateDown, begun)
	for name, c := range flows {
		t.Log(name)
		awaitPathMTU(t, c, smallMTU)
	}
}

// TestIPv6CarrierLoss: without carrier, new sessions over IPv6 take the other uplink at once.
func TestIPv6CarrierLoss(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	visits := keepVisitingOver(overIPv6, t, w.lan)
	visits.by(w.Uplinks[0].AddrV6(), time.Now())
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	w.ipv6Is("wan1", api.StateDown, begun)
	visits.by(w.Uplinks[1].AddrV6(), time.Now())
	expectOutage(t, visits.stop(), begun, carrierBound)
}
