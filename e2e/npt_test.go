package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// The prefixes that providers route to the gateway, and what becomes of the first LAN host, fd00:10::2, and of the second there,
// calculated by hand (RFC 6296 §3.4).
var (
	routedPrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8:101::/48"), netip.MustParsePrefix("2001:db8:102::/48")}
	mappedFirst    = []netip.Addr{netip.MustParseAddr("2001:db8:101:ce56::2"), netip.MustParseAddr("2001:db8:102:ce55::2")}
	mappedSecond   = []netip.Addr{netip.MustParseAddr("2001:db8:101:ce56::3"), netip.MustParseAddr("2001:db8:102:ce55::3")}
	mappedGateway  = netip.MustParseAddr("2001:db8:101:ce56::1") // its address on the LAN
	nobodysSubnet  = netip.MustParseAddr("2001:db8:101:ffff::1")
)

// nptv6 is the configuration of so many uplinks with a prefix each.
func nptv6(uplinks int) string {
	var b strings.Builder
	b.WriteString(inTurn + "uplinks:\n")
	for i := range uplinks {
		fmt.Fprintf(&b, "  - {interface: wan%d, nptv6: [fd00:10::/48=%s]}\n", i+1, routedPrefixes[i])
	}
	return b.String()
}

// beginNPT is a world whose uplinks have a prefix each.
func beginNPT(t testing.TB, uplinks, hosts int) world {
	t.Helper()
	w := beginWith(t, lab.Options{IPv6: true, Uplinks: make([]lab.UplinkOptions, uplinks), LANHosts: hosts}, nptv6(uplinks), func(o *lab.Topology) {
		for i, u := range o.Uplinks {
			labtest.Must(t, u.RouteV6(routedPrefixes[i]))
		}
	})
	for _, u := range w.Uplinks {
		w.ipv6Is(u.Device, api.StateUp, time.Time{})
	}
	w.family = overIPv6
	for _, host := range w.Hosts {
		w.lan = host.Namespace
		w.meetLAN()
	}
	w.lan = w.Hosts[0].Namespace
	return w
}

// TestMW13_NPTv6: whatever a LAN host opens has the host's own address of the uplink that carries it, and its own port; the gateway
// itself has another. A session stays on its uplink, and new ones leave by the other when one fails.
func TestMW13_NPTv6(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 2, 1)
	server, ctx := lab.ServerAddrsV6[0], labtest.Context(t)
	seen := make(map[netip.Addr]int)
	for range 8 {
		overTCP, err := w.lan.WhoAmI(ctx, server)
		labtest.Must(t, err)
		conn, err := w.lan.ListenPacket("udp6", "[::]:0")
		labtest.Must(t, err)
		overUDP, err := lab.AskUDP(ctx, conn, server, "who")
		labtest.Must(t, err)
		if overUDP.Port() != addrPortOf(conn.LocalAddr()).Port() {
			t.Errorf("%s left as %s", conn.LocalAddr(), overUDP)
		}
		labtest.Must(t, conn.Close())
		seen[overTCP.Addr()]++
		seen[overUDP.Addr()]++
		_, err = w.lan.Ping(ctx, server)
		labtest.Must(t, err)
		if own, err := w.Gateway.WhoAmI(ctx, server); err != nil || own.Addr() != w.Uplinks[0].AddrV6() && own.Addr() != w.Uplinks[1].AddrV6() {
			t.Errorf("the gateway left as %s: %v", own, err)
		}
	}
	if len(seen) != 2 || seen[mappedFirst[0]] == 0 || seen[mappedFirst[1]] == 0 {
		t.Errorf("the host left as %v", seen)
	}
	open := w.connect(w.lan, "wan2")
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].ISP.Sysctl("net/ipv6/conf/all/forwarding", "0"))
	w.ipv6Is("wan1", api.StateDown, begun)
	for range 4 {
		outside, err := w.lan.WhoAmI(ctx, server)
		labtest.Must(t, err)
		if outside.Addr() != mappedFirst[1] {
			t.Errorf("left as %s", outside)
		}
	}
	labtest.Must(t, open.talk())
}

// TestNPTv6Bulk: transfers in both directions arrive as they were sent, and every checksum is right; where the kernel carries sessions,
// hardly a packet of them comes to the daemon.
func TestNPTv6Bulk(t *testing.T) {
	t.Parallel()
	const size, few = 16 << 20, 300
	w := beginNPT(t, 1, 1)
	ctx, server := labtest.Context(t), lab.ServerAddrsV6[0]
	watch(t, w.Gateway, "wan1", "with an address of another's", func(p *lab.Packet) bool {
		return p.Outgoing && p.TCP != nil && p.Dst.Addr() == server && p.Src.Addr() != mappedFirst[0]
	})
	watch(t, w.lan, lab.DeviceHost, "", nil)
	packets, _ := w.handed()
	_, err := w.lan.BulkDownload(ctx, server, 1, size)
	labtest.Must(t, err)
	_, err = w.lan.BulkUpload(ctx, server, 2, size)
	labtest.Must(t, err)
	if now, _ := w.handed(); w.datapath == api.DatapathKernel && now-packets > few {
		t.Errorf("%d packets came to the daemon", now-packets)
	}
}

// TestNPTv6Firewall: the host's own firewall decides what comes in from outside (RFC 6092), as for any router.
func TestNPTv6Firewall(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 1, 1)
	ctx := labtest.Context(t)
	l, err := w.lan.Listen("tcp6", "[::]:22")
	labtest.Must(t, err)
	echoAll(t, l)
	inward := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		conn, err := w.Internet.Dial(ctx, "tcp6", netip.AddrPortFrom(mappedFirst[0], 22).String())
		if err == nil {
			labtest.Must(t, conn.Close())
		}
		return err
	}
	labtest.Must(t, inward(patience))
	nftablesRules(t, w.Gateway, `table inet filter {
		chain forward { type filter hook forward priority 0; iifname tapgw0 ct state established,related accept; iifname tapgw0 drop; }
	}`)
	w.awaitShortcut(false)
	if inward(300*time.Millisecond) == nil {
		t.Error("a connection from outside passes the firewall")
	}
	labtest.Must(t, w.connect(w.lan, "wan1").talk())
}

// TestFault30_NPTv6Reload: prefixes come and go with a reload; sessions of one that went are over.
func TestFault30_NPTv6Reload(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 1, 1)
	server, ctx := lab.ServerAddrsV6[0], labtest.Context(t)
	open := w.connect(w.lan, "wan1")
	reload := func(config string, want netip.Addr) {
		w.write(config)
		if out, status := w.tapgw("reload"); status != 0 {
			t.Fatal(out)
		}
		eventually(t, "an answer to "+want.String(), func() bool {
			return visitFor(w.lan, server, visitPatience).outside == want
		})
	}
	reload(inTurn+"uplinks: [{interface: wan1}]\n", w.Uplinks[0].AddrV6())
	if err := open.talk(); err == nil {
		t.Error("a connection goes on although its address has gone")
	}
	reload(nptv6(1), mappedFirst[0])
	outside, err := w.lan.WhoAmI(ctx, server)
	if err != nil || outside.Addr() != mappedFirst[0] {
		t.Errorf("left as %s: %v", outside, err)
	}
}

// TestNPTv6FromOutside: whatever a remote sends to a host's own address arrives, on any port, in fragments too, and is answered from
// there; what is for nobody is dropped and counted, and no service of the gateway is met.
func TestNPTv6FromOutside(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 2, 1)
	ctx := labtest.Context(t)
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		l, err := ns.Listen("tcp6", "[::]:22")
		labtest.Must(t, err)
		echoAll(t, l)
	}
	serveUDP(t, w.lan, netip.AddrPortFrom(w.Hosts[0].AddrV6, 53))
	for _, outside := range mappedFirst {
		conn, err := w.Internet.Dial(ctx, "tcp6", netip.AddrPortFrom(outside, 22).String())
		labtest.Must(t, err)
		defer conn.Close()
		labtest.Must(t, echo(conn, strings.Repeat("to its own port 22 ", 5000)))
		for _, n := range []int{100, 4000} {
			labtest.Must(t, askService(ctx, w.Internet, netip.AddrPortFrom(outside, 53), n))
		}
		_, err = w.Internet.Ping(ctx, outside)
		labtest.Must(t, err)
	}
	conn, err := w.Internet.Dial(ctx, "tcp6", netip.AddrPortFrom(mappedGateway, 22).String()) // the gateway's is a host of the LAN as any
	labtest.Must(t, err)
	labtest.Must(t, echo(conn, "to the gateway"))
	labtest.Must(t, conn.Close())
	const dropped = `tapgw_packets_dropped_total{reason="reserved_subnet"}`
	before := w.metric(dropped)
	udp, err := w.Internet.Dial(ctx, "udp6", netip.AddrPortFrom(nobodysSubnet, 22).String())
	labtest.Must(t, err)
	defer udp.Close()
	_, err = udp.Write([]byte("to nobody"))
	labtest.Must(t, err)
	eventually(t, "a packet to nobody dropped", func() bool { return w.metric(dropped) == before+1 })
}

// TestRFC6296_S4_3_HairpinAcrossUplinks: a LAN host reaches another one by that one's address of either uplink, and is seen by its own.
func TestRFC6296_S4_3_HairpinAcrossUplinks(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 2, 2)
	ctx := labtest.Context(t)
	for _, u := range w.Uplinks {
		watch(t, w.Gateway, u.Device, "into a prefix of ours", func(p *lab.Packet) bool {
			return p.Outgoing && p.V6 != nil && (routedPrefixes[0].Contains(p.Dst.Addr()) || routedPrefixes[1].Contains(p.Dst.Addr()))
		})
	}
	l, err := w.Hosts[1].Listen("tcp6", "[::]:22")
	labtest.Must(t, err)
	echoAll(t, l)
	serveUDP(t, w.Hosts[1].Namespace, netip.AddrPortFrom(w.Hosts[1].AddrV6, 53))
	for _, outside := range mappedSecond {
		for range 2 {
			conn, err := w.lan.Dial(ctx, "tcp6", netip.AddrPortFrom(outside, 22).String())
			labtest.Must(t, err)
			defer conn.Close()
			labtest.Must(t, echo(conn, strings.Repeat("to its own port 22 ", 5000)))
			labtest.Must(t, askService(ctx, w.lan, netip.AddrPortFrom(outside, 53), 4000))
			_, err = w.lan.Ping(ctx, outside)
			labtest.Must(t, err)
		}
		for _, s := range w.sessionsTo(t, outside) {
			if s.Outside.Port() == 22 && !slices.Contains(mappedFirst, s.Remote.Addr()) {
				t.Errorf("%+v", s)
			}
		}
	}
	for _, u := range w.Uplinks { // something else leaves
		w.connect(w.lan, u.Device)
	}
}

// TestRFC6296_S2_5_Restart: connections go on when the daemon is killed and started again, by the only uplink whichever side speaks
// first.
func TestRFC6296_S2_5_Restart(t *testing.T) {
	t.Parallel()
	w := beginNPT(t, 1, 1)
	l, err := w.lan.Listen("tcp6", "[::]:22")
	labtest.Must(t, err)
	echoAll(t, l)
	outward := w.connect(w.lan, "wan1")
	inward, err := w.Internet.Dial(labtest.Context(t), "tcp6", netip.AddrPortFrom(mappedFirst[0], 22).String())
	labtest.Must(t, err)
	defer inward.Close()
	labtest.Must(t, echo(inward, "before"))
	w.kill()
	w.restart()
	w.awaitUp(w.Topology)
	labtest.Must(t, outward.talk())
	labtest.Must(t, echo(inward, "after"))
}

// TestRFC6296_S2_6_OnTheWire: of packets of any protocol, with or without a checksum that is known, nothing but the address changes.
func TestRFC6296_S2_6_OnTheWire(t *testing.T) {
	t.Parallel()
	r := rawEnds(t, beginNPT(t, 1, 1))
	inside, remote := r.family.rawHosts[0], r.family.rawRemote
	outside := netip.MustParseAddr("2001:db8:101:ce56::77")
	bodies := map[string]func(src, dst netip.Addr) []byte{
		"tcp": func(src, dst netip.Addr) []byte {
			return r.packet(src, dst, &layers.TCP{SrcPort: 22, DstPort: 80, Seq: 5, SYN: true, Window: 9})
		},
		"udp": func(src, dst netip.Addr) []byte {
			return r.datagram(netip.AddrPortFrom(src, 53), netip.AddrPortFrom(dst, 53), "data")
		},
		"echo": func(src, dst netip.Addr) []byte { return r.packet(src, dst, echoRequestV6(7)...) },
	}
	for _, proto := range []layers.IPProtocol{47, 50, 132, 253} {
		bodies[fmt.Sprint("protocol ", int(proto))] = func(src, dst netip.Addr) []byte {
			h := ip6(src, dst)
			r.id++
			h.FlowLabel, h.NextHeader = uint32(r.id), proto
			return packetV6(r.t, h, nil, gopacket.Payload("opaque to everybody"))
		}
	}
	const header = 40
	for name, make := range bodies {
		b := make(inside, remote)
		p := r.out(b)
		if got := ipOf(p); p.Src.Addr() != outside || !bytes.Equal(got[header:], b[header:]) {
			t.Errorf("%s left from %s as % x, was % x", name, p.Src, got, b)
		}
		b = make(r.family.rawOther, outside)
		p = r.in(b)
		if got := ipOf(p); p.Dst.Addr() != inside || !bytes.Equal(got[header:], b[header:]) {
			t.Errorf("%s came to %s as % x, was % x", name, p.Dst, got, b)
		}
	}
}

// ipOf is a captured packet from its IPv6 header on.
func ipOf(p *lab.Packet) []byte { return append(bytes.Clone(p.V6.Contents), p.V6.Payload...) }

// echoRequestV6 is an echo request behind the header of IPv6.
func echoRequestV6(id uint16) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}, &layers.ICMPv6Echo{Identifier: id, SeqNumber: 1},
	}
}

// TestRFC6296_ICMPv6OnTheWire: an error of a router arrives about the packet as its sender knows it; what quotes none of ours does not.
func TestRFC6296_ICMPv6OnTheWire(t *testing.T) {
	t.Parallel()
	r := rawEnds(t, beginNPT(t, 1, 1))
	b := r.datagram(netip.AddrPortFrom(r.family.rawHosts[0], 53), netip.AddrPortFrom(r.family.rawRemote, 5300), "too big")
	sent := ipOf(r.out(b))
	router, outside := r.family.provider(r.Uplinks[0]), netip.MustParseAddr("2001:db8:101:ce56::77")
	tooBig := func(quoted []byte) []byte {
		return r.packet(router, outside, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)},
			gopacket.Payload(append([]byte{0, 0, 5, 20}, quoted...)))
	}
	p := r.in(tooBig(sent))
	quoted := ipOf(p)[48:]
	b[7], quoted[7] = 0, 0 // hops
	if p.Dst.Addr() != r.family.rawHosts[0] || !bytes.Equal(quoted, b) {
		t.Errorf("arrived at %s with % x, want % x", p.Dst, quoted, b)
	}
	foreign := bytes.Clone(sent)
	foreign[41]++ // another port
	r.dropped("an error about nothing", tooBig(foreign))
	r.dropped("an error without a whole header", tooBig(sent[:39]))
}

// TestRFC6296_S4_2_Refusals: who has no address outside is told so, and so is who sends into a subnet of the prefix that is not there.
func TestRFC6296_S4_2_Refusals(t *testing.T) {
	t.Parallel()
	r := rawEnds(t, beginNPT(t, 1, 1))
	nowhere := netip.MustParseAddr("fd00:10:0:77::1")
	b := r.datagram(netip.AddrPortFrom(r.Hosts[0].AddrV6, 4000), netip.AddrPortFrom(nowhere, 53), "nobody there")
	_, err := r.eth.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
		return !p.Outgoing && p.ICMPv6 != nil && p.ICMPv6.TypeCode == layers.CreateICMPv6TypeCode(1, 0) && bytes.HasSuffix(p.Data, b[40:])
	}, func() error { sendRaw(t, r.lan, nowhere, b); return nil })
	labtest.Must(t, err)
}
