package nft

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestNoRelayOfIPv6: neighbours on an uplink get neither to the TAP nor, where we switched forwarding on, to the LAN.
func TestNoRelayOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.wantedV6())
	w.relayedV6(sinkAddrV6, w.listenUDP(w.sink, 9), false)
	w.relayedV6(lanAddrV6, w.listenUDP(w.lan, 9), false)
	w.relayedV6(isp2AddrV6, w.listenUDP(w.isp2, 9), false)

	wanted := w.wantedV6()
	wanted.Uplinks[0].GuardV6 = false // that of IPv4 says nothing about IPv6
	w.must(r.Apply(wanted))
	w.relayedV6(sinkAddrV6, w.listenUDP(w.sink, 10), false)
	w.relayedV6(lanAddrV6, w.listenUDP(w.lan, 10), true)

	w.must(r.Apply(w.wantedV6()))
	w.must(r.socket.close())
	w.relayedV6(lanAddrV6, w.listenUDP(w.lan, 11), false)
}

// relayedV6 is relayed for IPv6.
func (w *world) relayedV6(addr string, server net.PacketConn, want bool) {
	w.t.Helper()
	port := server.LocalAddr().(*net.UDPAddr).Port
	barrier := w.listenUDP(w.host, otherPort)
	defer barrier.Close()
	w.send(w.isp1, addr, port, "relay")
	w.send(w.isp1, hostOnISP1V6, otherPort, "barrier")
	w.receive(barrier)
	w.send(w.host, addr, port, "direct")
	got, from := w.receive(server)
	if (got == "relay") != want {
		w.t.Errorf("to %s: received %q first, want relayed %t", addr, got, want)
	}
	if got == "relay" && from.Addr() != netip.MustParseAddr(isp1AddrV6) {
		w.t.Errorf("to %s: a stranger's packet was masqueraded as from %v", addr, from)
	}
}

// TestNothingOfIPv6LeavesUntranslated: from none of the addresses that the host has on the TAP, or had before.
func TestNothingOfIPv6LeavesUntranslated(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.wantedV6())
	server := w.listenUDP(w.isp1, 9)
	earlier, now := "2001:db8:1::7467", "2001:db8:1::7468"
	first := func(sources ...string) string {
		t.Helper()
		w.must(w.host.Do(func() error {
			for _, source := range append(sources, hostOnISP1V6) {
				d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
				c, err := d.Dial("udp6", net.JoinHostPort(isp1AddrV6, "9"))
				if err != nil {
					return err
				}
				_, _ = c.Write([]byte(source)) // refused, where it is
				if err := c.Close(); err != nil {
					return err
				}
			}
			return nil
		}))
		got, _ := w.receive(server)
		for last := got; last != hostOnISP1V6; {
			last, _ = w.receive(server)
		}
		return got
	}
	for _, addr := range []string{earlier, now} {
		l, err := w.host.Handle().LinkByName("tapgw0")
		w.must(err)
		w.must(w.host.Handle().AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(addr)), Flags: unix.IFA_F_NODAD}))
	}
	if got := first(now); got != now {
		t.Errorf("%s left first, although nothing is known of it", got)
	}
	wanted := w.wantedV6()
	wanted.AddressesV6 = []netip.Addr{netip.MustParseAddr(now), netip.MustParseAddr(earlier)}
	w.must(r.Apply(wanted))
	if got := first(earlier, now); got != hostOnISP1V6 {
		t.Errorf("%s left first", got)
	}
}

// TestFallbackMasqueradesIPv6: the LAN goes on with IPv6, too, when we are dead, with ports that the datapath does not own.
func TestFallbackMasqueradesIPv6(t *testing.T) {
	w := newWorldV6(t)
	server := w.listen(w.isp1, 80)
	r := w.apply(w.wantedV6())
	masqueraded := func() {
		t.Helper()
		seen := w.reachFrom(w.lan, poolPort, isp1AddrV6, 80, server)
		if seen.Addr() != netip.MustParseAddr(hostOnISP1V6) || seen.Port() < 32768 || seen.Port() > 60999 {
			t.Errorf("the server sees %v, want %s with a port of 32768–60999", seen, hostOnISP1V6)
		}
	}
	masqueraded()
	w.must(r.socket.close())
	w.expectTables("2 tapgw_fallback", "10 tapgw_fallback")
	masqueraded()
	own := netip.AddrPortFrom(netip.MustParseAddr(hostOnISP1V6), poolPort)
	if seen := w.reachFrom(w.host, poolPort, isp1AddrV6, 80, server); seen != own {
		t.Errorf("the host's own connection from %v appears as from %v", own, seen)
	}
	w.must(w.host.Do(Cleanup))
	w.expectTables()
}

// TestWithoutMasqueradeOfIPv6: what the LAN sends directly passes as it is, and strangers stay outside.
func TestWithoutMasqueradeOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	wanted := w.wantedV6()
	wanted.NoMasqueradeV6 = true
	r := w.apply(wanted)
	server := w.listen(w.isp1, 80)
	for port := range 2 {
		stream := w.stream(w.lan, isp1AddrV6, 80, server)
		w.must(stream.talk())
		if seen := stream.far.RemoteAddr().(*net.TCPAddr).AddrPort(); seen.Addr() != netip.MustParseAddr(lanAddrV6) {
			t.Errorf("the server sees %v", seen)
		}
		w.relayedV6(lanAddrV6, w.listenUDP(w.lan, 9+port), false)
		_ = r.socket.close()
	}
}

// TestSettledConnectionsOfIPv6AreRefused: what went untranslated into the TAP waits while we live, and is reset when we are dead.
func TestSettledConnectionsOfIPv6AreRefused(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.wantedV6())
	for _, ns := range []*lab.Namespace{w.sink, w.isp1} {
		w.addV6(ns, "lo", farAddrV6)
	}
	leadTo := func(gateway string) {
		t.Helper()
		w.must(w.host.Handle().RouteReplace(&netlink.Route{Dst: netlink.NewIPNet(net.ParseIP(farAddrV6)), Gw: net.ParseIP(gateway)}))
	}
	leaks, err := w.isp1.StartCapture("eth0", func(p *lab.Packet) bool {
		return !p.Outgoing && len(p.Data) > 38 && p.Data[12] == 0x86 && net.IP(p.Data[22:38]).Equal(net.ParseIP(lanAddrV6))
	})
	w.must(err)
	t.Cleanup(func() { _, _ = leaks.Stop() })
	leadTo(sinkAddrV6)
	stream := w.stream(w.lan, farAddrV6, 80, w.listen(w.sink, 80))
	leadTo(isp1AddrV6)
	w.write(stream.near, "x")
	w.reach(w.lan, isp1AddrV6, 80, w.listen(w.isp1, 80))
	leadTo(sinkAddrV6)
	_, err = stream.far.Read(make([]byte, 1))
	w.must(err)
	w.must(stream.talk())

	w.must(r.socket.close())
	leadTo(isp1AddrV6)
	if err := stream.talk(); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the next write of a connection: %v, want a reset", err)
	}
	report, err := leaks.Stop()
	w.must(err)
	for _, p := range report.Kept {
		t.Errorf("left untranslated: %s", p)
	}
}

// TestUntrackedIPv6: what goes between ports of the LAN and the TAP, of that family alone that is wanted.
func TestUntrackedIPv6(t *testing.T) {
	w := newWorldV6(t)
	w.routeV6(w.host, sinkAddrV6)
	wanted := w.wantedV6()
	lan, err := w.host.Index("lan0")
	w.must(err)
	exchange := func(port int, addr string) {
		t.Helper()
		w.reach(w.lan, addr, port, w.listen(w.sink, port))
	}
	r := w.apply(wanted)
	exchange(81, sinkAddrV6)
	wanted.Untracked = []int{lan}
	w.must(r.Apply(wanted))
	exchange(82, sinkAddrV6)
	wanted.UntrackedV6 = []int{lan}
	w.must(r.Apply(wanted))
	exchange(83, sinkAddrV6)
	w.reach(w.lan, isp1AddrV6, 84, w.listen(w.isp1, 84))
	tracked := w.connections(unix.AF_INET6)
	for port, want := range map[int]bool{81: true, 82: true, 83: false, 84: true} {
		if tracked[port] != want {
			t.Errorf("port %d: tracked %t, want %t", port, tracked[port], want)
		}
	}
}

// TestLANPacketsOfIPv6TurnBack: to ports of the pool, errors and what has extension headers at the address of any uplink, and all of
// static hosts.
func TestLANPacketsOfIPv6TurnBack(t *testing.T) {
	for name, n := range uplinkCounts {
		t.Run(name, func(t *testing.T) { lanPacketsOfIPv6TurnBack(t, n) })
	}
}

func lanPacketsOfIPv6TurnBack(t *testing.T, uplinks int) {
	w := newWorldV6(t)
	wanted := crowded(w.wantedV6(), uplinks)
	lan, err := w.host.Index("lan0")
	w.must(err)
	wanted.Turned = []Turned{{Name: "lan0", Index: lan, GiveBackMAC: backMAC}}
	r := w.apply(wanted)
	tap, err := w.sink.StartCapture("eth0", nil)
	w.must(err)
	t.Cleanup(func() { _, _ = tap.Stop() })
	far, near := w.links(w.lan, "lan0")
	turned := func(addr string, proto byte, send func()) {
		t.Helper()
		_, err := tap.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
			return len(p.Data) > 54 && p.Data[12] == 0x86 && p.Data[20] == proto && net.IP(p.Data[38:54]).Equal(net.ParseIP(addr))
		}, func() error { send(); return nil })
		w.must(err)
	}
	server := w.listen(w.host, otherPort)
	for _, addr := range []string{hostOnISP1V6, hostOnISP2V6} {
		turned(addr, unix.IPPROTO_TCP, func() { w.syn(w.lan, addr, poolPort) })
		turned(addr, unix.IPPROTO_FRAGMENT, func() { w.send(w.lan, addr, otherPort, strings.Repeat("fragmented", 300)) })
		turned(addr, unix.IPPROTO_DSTOPTS, func() { w.inject(w.lan, datagramV6(far, near, addr, otherPort, 60)) })
		for kind := byte(1); kind <= 4; kind++ {
			turned(addr, unix.IPPROTO_ICMPV6, func() {
				w.inject(w.lan, icmpV6(far, near, lanAddrV6, addr, append([]byte{kind, 0, 0, 0}, make([]byte, 60)...)))
			})
		}
		w.reach(w.lan, addr, otherPort, server)
	}
	w.reach(w.lan, hostOnLANV6, poolPort, w.listen(w.host, poolPort))
	w.reach(w.lan, isp1AddrV6, poolPort, w.listen(w.isp1, poolPort))

	wanted.Uplinks[0].Whole = wanted.Uplinks[0].Addresses[1:]
	w.must(r.Apply(wanted))
	turned(hostOnISP1V6, unix.IPPROTO_TCP, func() { w.syn(w.lan, hostOnISP1V6, otherPort) })
	w.reach(w.lan, hostOnISP2V6, otherPort, server)
	wanted.Uplinks[0].Insides = []netip.Addr{netip.MustParseAddr(lanAddrV6)}
	w.must(r.Apply(wanted))
	turned(hostOnISP2V6, unix.IPPROTO_TCP, func() { w.syn(w.lan, hostOnISP2V6, otherPort) })
	w.reach(w.lan, hostOnLANV6, otherPort, server)
}

// TestWhatNeedsTranslationOfIPv6SaysSo: so that who applies can do without it.
func TestWhatNeedsTranslationOfIPv6SaysSo(t *testing.T) {
	p := newPlan(Wanted{LAN: true, IPv6: true, Uplinks: []Uplink{{Name: "wan0"}}})
	for _, c := range p.chains {
		err := failure([]message{c.add(), c.addRule(nil)}, 1, unix.ENOENT)
		if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), c.needs) {
			t.Errorf("%s: %v", c.name, err)
		}
		if of := c.table == fallbackV6; errors.Is(err, ErrNoMasqueradeV6) != of {
			t.Errorf("%s %s: %v", c.table, c.name, err)
		}
	}
	p = newPlan(Wanted{LAN: true, IPv6: true, NoMasqueradeV6: true, Uplinks: []Uplink{{Name: "wan0"}}})
	for _, c := range p.part(fallbackV6).chains {
		if err := failure([]message{c.add()}, 0, unix.ENOENT); errors.Is(err, ErrNoMasqueradeV6) || c.kind == "nat" {
			t.Errorf("%s %s: %v", c.table, c.name, err)
		}
	}
}
