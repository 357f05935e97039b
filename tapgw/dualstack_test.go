package tapgw

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Addresses of the tests of IPv6.
var (
	insideV6 = netip.MustParseAddr("fd00:1::2")
	serverV6 = netip.MustParseAddr("2001:db8:ff::1")
	wan1V6   = netip.MustParseAddr("2001:db8:1::2")
	tapV6    = netip.MustParseAddr("2001:db8:1::7467")
)

// dual is a world with a gateway of IPv6 beside that of IPv4; only uplink 1 has IPv6.
type dual struct {
	*world
	both    *DualStack
	tableV6 *nat.Table
}

func newDual(t testing.TB, change ...func(*nat.Config)) dual {
	t.Helper()
	w := newWorld(t, change...)
	table := newWorld(t, append(change, func(c *nat.Config) { c.IPv6 = true })...).table
	c := w.g.cfg
	c.IPv6, c.GatewayIP, c.TAPIP = true, netip.MustParseAddr("fe80::7467"), tapV6
	v6 := New(c, table, w.g.meters)
	must(t, v6.SetPlan(policy.NewPlan("failover")))
	w.ups[0].V6 = uplinks.Side{State: uplinks.Up, Addresses: []netip.Addr{wan1V6}, GatewayMAC: [6]byte{2, 1}, Generation: 7}
	d := dual{w, NewDualStack(w.g, v6), table}
	d.both.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{&w.ups[0], &w.ups[1]}))
	return d
}

// frameV6 is a packet of IPv6 in a buffer with room to grow.
func frameV6(t testing.TB, src, dst netip.Addr, l4 interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}, proto layers.IPProtocol, payload string) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if err := l4.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	eth := &layers.Ethernet{SrcMAC: strangeMAC[:], DstMAC: strangeMAC[:], EthernetType: layers.EthernetTypeIPv6}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		gopacket.Payload(make([]byte, packet.VnetLen)), eth, ip, l4, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return slices.Grow(buf.Bytes(), room)
}

func udpV6(t testing.TB, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, payload string) []byte {
	t.Helper()
	return frameV6(t, src, dst, &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, layers.IPProtocolUDP, payload)
}

// seenV6 is a packet of IPv6 as gopacket reads it.
type seenV6 struct {
	src, dst netip.AddrPort
	tcp      *layers.TCP
	payload  string
}

// lookV6 reads a packet of TCP or UDP and fails when its checksum is wrong.
func lookV6(t *testing.T, b []byte) (s seenV6) {
	t.Helper()
	p := gopacket.NewPacket(b[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
	ip, _ := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip == nil || p.TransportLayer() == nil {
		t.Fatalf("no packet of IPv6: %v", p)
	}
	pseudo := append(append(append([]byte(nil), ip.SrcIP...), ip.DstIP...), 0, 0, byte(len(ip.Payload)>>8), byte(len(ip.Payload)), 0, 0, 0, byte(ip.NextHeader))
	if sum := wordSum(append(pseudo, ip.Payload...)); sum != 0xffff {
		t.Fatalf("wrong checksum: %v", p)
	}
	flow := p.TransportLayer().TransportFlow()
	s.src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(ip.SrcIP)), binary.BigEndian.Uint16(flow.Src().Raw()))
	s.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(ip.DstIP)), binary.BigEndian.Uint16(flow.Dst().Raw()))
	s.tcp, _ = p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	s.payload = string(p.TransportLayer().LayerPayload())
	return s
}

// TestFamiliesApart: each frame meets the gateway of its family, which uses the uplinks' side to that family.
func TestFamiliesApart(t *testing.T) {
	d := newDual(t)
	b := udpV6(t, insideV6, 4000, serverV6, 53, "question")
	res := d.both.Outbound(b, start)
	d.expect(res, Send, NoReason)
	got := lookV6(t, b)
	outside, to := got.src, got.dst
	if res.Uplink != 1 || outside.Addr() != wan1V6 || to != netip.AddrPortFrom(serverV6, 53) {
		t.Fatalf("%s to %s by uplink %d", outside, to, res.Uplink)
	}
	v4 := udpFrame(t, inside, 4000, server, 53, "question")
	d.sent(d.both.Outbound(v4, start), v4, 1)
	if n, m := d.table.SessionsOn(1), d.tableV6.SessionsOn(1); n != 1 || m != 1 {
		t.Errorf("%d sessions of IPv4, %d of IPv6", n, m)
	}

	b = udpV6(t, serverV6, 53, wan1V6, outside.Port(), "answer")
	d.expect(d.both.Inbound(b, 1, start), Deliver, NoReason)
	if got := lookV6(t, b); got.src != netip.AddrPortFrom(serverV6, 53) || got.dst != netip.AddrPortFrom(insideV6, 4000) {
		t.Fatalf("%s to %s", got.src, got.dst)
	}
}

// TestIPv6Leaves: with its uplink's IPv6 gone there is no way, whatever IPv4 has; without a gateway of IPv6 its packets are nobody's.
func TestIPv6Leaves(t *testing.T) {
	d := newDual(t)
	d.ups[0].V6.State = uplinks.Down
	d.both.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{&d.ups[0], &d.ups[1]}))
	d.expect(d.both.Outbound(udpV6(t, insideV6, 4000, serverV6, 53, "x"), start), Drop, NoUplink)
	alone := NewDualStack(d.g, nil)
	d.expect(alone.Outbound(udpV6(t, insideV6, 4000, serverV6, 53, "x"), start), Drop, NotIPv4)
	d.expect(alone.Inbound(udpV6(t, serverV6, 53, wan1V6, 4000, "x"), 1, start), Ignore, NoReason)
}

// TestHostOfIPv6: the host's addresses on the TAP follow the uplinks' prefixes, and errors come from a neighbour of the present one.
func TestHostOfIPv6(t *testing.T) {
	g := newDual(t).both.For(uplinks.IPv6)
	next := netip.MustParseAddr("2001:db8:2::7466")
	g.SetHost(next, tapV6)
	for a, want := range map[netip.Addr]bool{next: true, tapV6: true, next.Next(): false, insideV6: false} {
		if g.isHostItself(packet.AddrOf(a)) != want {
			t.Errorf("%s is the host's: %v", a, !want)
		}
	}
	if got := g.routerAddr(); got != next.Next() {
		t.Errorf("router %s", got)
	}
}

// segmentV6 is a segment of the control connection of FTP.
func (d dual) segmentV6(out bool, outside uint16, seq, ack uint32, flags uint8, payload string) []byte {
	src, dst := netip.AddrPortFrom(insideV6, 4000), netip.AddrPortFrom(serverV6, 21)
	if !out {
		src, dst = dst, netip.AddrPortFrom(wan1V6, outside)
	}
	return frameV6(d.t.(*testing.T), src.Addr(), dst.Addr(), &layers.TCP{
		SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: seq, Ack: ack, Window: 100,
		SYN: flags&packet.SYN != 0, ACK: flags&packet.ACK != 0,
	}, layers.IPProtocolTCP, payload)
}

// pass has the gateway handle a segment, and returns what comes out.
func (d dual) pass(b []byte, out bool) seenV6 {
	d.t.Helper()
	res, want := d.both.Inbound(b, 1, start), Deliver
	if out {
		res, want = d.both.Outbound(b, start), Send
	}
	d.expect(res, want, NoReason)
	return lookV6(d.t.(*testing.T), b[:len(b)+int(res.Grown)])
}

// TestFTPOverIPv6: EPRT names the outside endpoint, what follows fits, and the server's connection comes to the client.
func TestFTPOverIPv6(t *testing.T) {
	d := newDual(t)
	d.both.SetHelpers(helped)
	outside := d.pass(d.segmentV6(true, 0, 100, 0, syn, ""), true).src.Port()
	d.pass(d.segmentV6(false, outside, 500, 101, synAck, ""), false)
	d.pass(d.segmentV6(true, 0, 101, 501, ack, ""), true)
	command := fmt.Sprintf("EPRT |2|%s|5000|\r\n", insideV6)
	told := d.pass(d.segmentV6(true, 0, 101, 501, ack, command), true).payload
	var port uint16
	if n, err := fmt.Sscanf(told, "EPRT |2|"+wan1V6.String()+"|%d|\r\n", &port); n != 1 || err != nil {
		t.Fatalf("the server gets %q", told)
	}
	more := d.pass(d.segmentV6(true, 0, 101+uint32(len(command)), 501, ack, "NOOP\r\n"), true)
	if want := 101 + uint32(len(told)); more.tcp.Seq != want {
		t.Errorf("the next command is at %d, not %d", more.tcp.Seq, want)
	}
	answer := d.pass(d.segmentV6(false, outside, 501, 101+uint32(len(told)+len("NOOP\r\n")), ack, "200 OK\r\n"), false)
	if want := 101 + uint32(len(command)+len("NOOP\r\n")); answer.tcp.Ack != want {
		t.Errorf("the answer acknowledges %d, not %d", answer.tcp.Ack, want)
	}
	data := frameV6(t, serverV6, wan1V6, &layers.TCP{SrcPort: 20, DstPort: layers.TCPPort(port), SYN: true}, layers.IPProtocolTCP, "")
	if got := d.pass(data, false); got.dst != netip.AddrPortFrom(insideV6, 5000) {
		t.Errorf("the data connection comes to %s", got.dst)
	}
}

// TestExemptDestinationsOfIPv6 leave with the address that they have, but for what the host itself sends.
func TestExemptDestinationsOfIPv6(t *testing.T) {
	d := newDual(t)
	must(t, d.both.SetPlan(exempting("10.0.0.0/8", "2001:db8:ff::/48")))
	for src, want := range map[netip.Addr]netip.Addr{insideV6: insideV6, tapV6: wan1V6} {
		b := udpV6(t, src, 4000, serverV6, 53, "x")
		if res := d.both.Outbound(b, start); res.Verdict != Send || lookV6(t, b).src.Addr() != want {
			t.Errorf("%s leaves as %s, verdict %d", src, lookV6(t, b).src, res.Verdict)
		}
	}
}

// TestAdviceNamesTheFamily: what to raise is the table of IPv6 that is full.
func TestAdviceNamesTheFamily(t *testing.T) {
	d := newDual(t, func(c *nat.Config) { c.MaxSessions = 1 })
	for port := range uint16(2) {
		d.both.Outbound(udpV6(t, insideV6, 4000+port, serverV6, 53, "x"), start)
	}
	if list := d.both.TakeRefusals(); len(list) != 1 || list[0].Reason != TableFull || !strings.Contains(list[0].Advice(), "max_sessions_ipv6") {
		t.Errorf("refused: %+v", list)
	}
}
