package fastpath

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const tapRouter = "fe80::7467"

// newWorldV6 is newWorld with IPv6 as well, whose sessions the rig then has. Endpoints have the addresses of samples.
func newWorldV6(t *testing.T, connect connector, headerless bool, o *lab.Offloads) *world {
	t.Helper()
	w := newWorld(t, connect, headerless, o)
	w.rig = newRigOf(t, uplinks.IPv6)
	must, at := func(err error) { t.Helper(); labtest.Must(t, err) }, func(n uint32) string { return w.addr(n).Netip().String() }
	for _, ns := range []*lab.Namespace{w.client, w.gateway, w.isp} {
		must(ns.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	}
	for _, a := range []struct {
		ns           *lab.Namespace
		device, addr string
	}{
		{w.client, "eth0", "fd00::2/64"}, {w.client, "lo", at(0x0a000002) + "/128"}, {w.gateway, "lan0", "fd00::1/64"},
		{w.gateway, "up0", "fd01::7/64"}, {w.gateway, "lo", at(outside) + "/128"},
		{w.isp, "eth0", "fd01::1/64"}, {w.isp, "lo", at(0xcb007109) + "/128"},
	} {
		addIPv6(t, a.ns, a.device, a.addr)
	}
	routeV6(t, w.client, "", "fd00::1", "eth0")
	routeV6(t, w.gateway, at(0x0a000002), "fd00::2", "lan0")
	routeV6(t, w.isp, at(outside), "fd01::7", "eth0")
	addIPv6(t, w.gateway, "tapgw0", "fd02::1/128")
	tap, err := w.gateway.Handle().LinkByName("tapgw0")
	must(err)
	must(w.gateway.Handle().NeighAdd(&netlink.Neigh{
		LinkIndex: tap.Attrs().Index, IP: net.ParseIP(tapRouter), HardwareAddr: gatewayMAC[:], State: netlink.NUD_PERMANENT, Family: unix.AF_INET6,
	}))
	routeV6(t, w.gateway, "", tapRouter, "tapgw0")
	w.attach(t, tap.Attrs().Index, headerless)
	return w
}

// addIPv6 gives a device an address that needs no detection of duplicates.
func addIPv6(t *testing.T, ns *lab.Namespace, device, addr string) {
	t.Helper()
	labtest.Must(t, ns.Sysctl("net/ipv6/conf/"+device+"/disable_ipv6", "0"))
	link, err := ns.Handle().LinkByName(device)
	labtest.Must(t, err)
	a, err := netlink.ParseAddr(addr)
	labtest.Must(t, err)
	a.Flags = unix.IFA_F_NODAD
	labtest.Must(t, ns.Handle().AddrAdd(link, a))
}

// routeV6 adds a route to one address, or the default route.
func routeV6(t *testing.T, ns *lab.Namespace, dst, via, device string) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	r := &netlink.Route{LinkIndex: index, Gw: net.ParseIP(via), Family: unix.AF_INET6}
	if dst != "" {
		r.Dst = &net.IPNet{IP: net.ParseIP(dst), Mask: net.CIDRMask(128, 128)}
	}
	labtest.Must(t, ns.Handle().RouteAdd(r))
}

// TestOnTheWireIPv6 is TestOnTheWire for IPv6.
func TestOnTheWireIPv6(t *testing.T) {
	eachWire(t, newWorldV6, func(t *testing.T, ns *lab.Namespace) {
		checkNoBadChecksums(t, ns)
		checkNoneOfIPv6(t, ns)
	})
}

// checkNoneOfIPv6 is checkNoBadChecksums for the counters of IPv6.
func checkNoneOfIPv6(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	var snmp []byte
	labtest.Must(t, ns.Do(func() (err error) { snmp, err = os.ReadFile("/proc/thread-self/net/snmp6"); return err }))
	found := 0
	for line := range strings.Lines(string(snmp)) {
		f := strings.Fields(line)
		if f[0] != "Ip6InHdrErrors" && f[0] != "Udp6InCsumErrors" {
			continue
		}
		if found++; f[1] != "0" {
			t.Errorf("%s: %s is %s", ns.Name(), f[0], f[1])
		}
	}
	if found < 2 {
		t.Errorf("%s: cannot read the counters of bad checksums", ns.Name())
	}
}

// TestLANOnTheWireIPv6: datagrams pass the gateway without its own stack, one hop each way, until the host would route them elsewhere.
func TestLANOnTheWireIPv6(t *testing.T) {
	w := newWorldV6(t, lab.Connect, false, nil)
	lan, err := w.gateway.Index("lan0")
	labtest.Must(t, err)
	labtest.Must(t, w.SetHops(uplinks.IPv6, []Hop{{Index: lan, MTU: 1500, Gateway: netip.MustParseAddr("fd00::2")}}))
	labtest.Must(t, w.gateway.Do(func() error { return w.AttachLAN(lan) }))
	out, in := labtest.Capture(t, w.isp, "eth0"), labtest.Capture(t, w.client, "eth0")
	ref, outside := w.session(t, unix.IPPROTO_UDP, 5000, 53)
	w.relabel(1)
	here := udp(t, w.client, w.end(0x0a000002, 5000), w.end(0xcb007109, 53), 1200)
	there := udp(t, w.isp, w.end(0xcb007109, 53), outside, 1200)
	for range 2 {
		w.mustPass(t, out, here, there, 63)
		w.mustPass(t, in, there, here, 63)
	}
	if n := forwardedV6(t, w.gateway); n != "0" {
		t.Errorf("the gateway's own stack forwarded %s datagrams", n)
	}
	w.mustHaveCounted(t, ref, 1)
}

// TestLANToGoIPv6: what may begin a session that bypasses the host goes to Go, and so does what has extension headers, where the
// host would route it into the TAP.
func TestLANToGoIPv6(t *testing.T) {
	w := newWorldV6(t, lab.Connect, false, nil)
	labtest.Must(t, w.AttachUpcall(1))
	link, err := w.gateway.Handle().LinkByName("lan0")
	labtest.Must(t, err)
	hops := []Hop{{Index: link.Attrs().Index, MTU: 1500}}
	const internet, onLAN = 0x08080808, 0x0a000002
	same := func(f []byte) []byte { return f }
	for _, c := range []struct {
		name       string
		dst        uint32
		make       func([]byte) []byte
		ttl        byte
		hops       []Hop
		forwarding string
		upcalled   bool
	}{
		{"of no session yet", internet, same, 64, hops, "1", true},
		{"fragment", internet, extended(44), 64, hops, "1", true},
		{"hop-by-hop options", internet, extended(0), 2, hops, "1", true},
		{"routing header", internet, extended(43), 64, hops, "1", true},
		{"destination options", internet, extended(60), 64, hops, "1", true},
		{"expiring", internet, same, 1, hops, "1", false},
		{"ICMPv6", internet, put(ip+6, packet.ProtoICMPv6), 64, hops, "1", false},
		{"another protocol", internet, put(ip+6, 132), 64, hops, "1", false},
		{"from another subnet", internet, put(ip+15, 0x77), 64, hops, "1", false},
		{"within the LAN", onLAN, same, 64, hops, "1", false},
		{"fragment within the LAN", onLAN, extended(44), 64, hops, "1", false},
		{"to the host", outside, same, 64, hops, "1", false},
		{"without the shortcut", internet, same, 64, nil, "1", false},
		{"fragment without the shortcut", internet, extended(44), 64, nil, "1", false},
		{"where nothing is forwarded", internet, same, 64, hops, "0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			labtest.Must(t, w.gateway.Sysctl("net/ipv6/conf/lan0/forwarding", c.forwarding))
			labtest.Must(t, w.SetHops(uplinks.IPv6, c.hops))
			f := sample{family: w.family, src: 0x0a000002, dst: c.dst, sport: 1, dport: 2, proto: packet.ProtoUDP, payload: 16}.build()
			copy(f, link.Attrs().HardwareAddr)
			f = lives(c.make(f), c.ttl)
			wantCode, want := uint32(codeNext), f
			if c.upcalled {
				wantCode, want = codeHit, labelled(aged(f), tagLAN)
			}
			if code, got := runOn(t, w.gateway, "lan0", w.lan, f); code != wantCode || !bytes.Equal(got, want) {
				t.Errorf("code %d and\n%x, want %d and\n%x", int32(code), got, int32(wantCode), want)
			}
		})
	}
}

// TestOwnAddressIPv6: what carries an uplink's own address leaves by it as it is, but for what Go must see.
func TestOwnAddressIPv6(t *testing.T) {
	w := newWorldV6(t, lab.Connect, false, nil)
	up, err := w.gateway.Index("up0")
	labtest.Must(t, err)
	ready := usable
	ready.Index, ready.MTU, ready.Ready = up, 1500, true
	w.set(t, ready)
	labtest.Must(t, w.SetAddresses(uplinkID, w.family, []nat.PortArrays{{Outside: w.addr(outside), TCP: -1, UDP: -1}}))
	own := sample{family: w.family, src: outside, dst: 0xcb007109, sport: 53, dport: 5000, proto: packet.ProtoUDP, payload: 16}
	begins, others, big := own, own, own
	begins.proto, begins.flags, others.src, big.payload = packet.ProtoTCP, packet.SYN|packet.ACK, 0x0a000002, 1500
	for name, c := range map[string]struct {
		frame []byte
		leave bool
	}{
		"own": {own.build(), true}, "accepts a connection": {begins.build(), false}, "another source": {others.build(), false},
		"too big": {big.build(), false}, "extension header": {extended(60)(own.build()), false},
	} {
		if code, got := runOn(t, w.gateway, "tapgw0", w.egress, c.frame); (code == codeHit) != c.leave || !bytes.Equal(got, c.frame) {
			t.Errorf("%s: code %d and\n%x", name, int32(code), got)
		}
	}
}

// forwardedV6 is forwarded for IPv6.
func forwardedV6(t *testing.T, ns *lab.Namespace) string {
	t.Helper()
	var snmp []byte
	labtest.Must(t, ns.Do(func() (err error) { snmp, err = os.ReadFile("/proc/thread-self/net/snmp6"); return err }))
	for line := range strings.Lines(string(snmp)) {
		if f := strings.Fields(line); f[0] == "Ip6OutForwDatagrams" {
			return f[1]
		}
	}
	t.Fatal("cannot read the number of forwarded datagrams")
	return ""
}

// TestWithoutIPv6: where there is no room for sessions of IPv6, it passes all programs as it is.
func TestWithoutIPv6(t *testing.T) {
	labtest.RequireRoot(t)
	p, err := Load(Config{Seed: seed, MaxSessions: sessions, Secret: secret})
	labtest.Must(t, err)
	defer func() { labtest.Must(t, p.Close()) }()
	labtest.Must(t, p.SetHops(uplinks.IPv6, []Hop{{Index: 1, MTU: mtu}}))
	labtest.Must(t, p.SetAddresses(0, uplinks.IPv6, []nat.PortArrays{{Outside: addressOf(uplinks.IPv6, outside), TCP: -1, UDP: -1}}))
	for _, s := range samplesOf(uplinks.IPv6) {
		s.dst = outside
		for name, program := range map[string]*ebpf.Program{"TAP": p.egress, "LAN": p.lan, "uplink": p.ingresses[variant{0, false}]} {
			if code, got := run(t, program, s.build(), 0); code != codeNext || !bytes.Equal(got, s.build()) {
				t.Errorf("%s: code %d and\n%x", name, int32(code), got)
			}
		}
	}
}
