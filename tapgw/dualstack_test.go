package tapgw

import (
	"net/netip"
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

func newDual(t testing.TB) dual {
	t.Helper()
	w := newWorld(t)
	table := newWorld(t, func(c *nat.Config) { c.IPv6 = true }).table
	scheduler, err := policy.New("failover")
	if err != nil {
		t.Fatal(err)
	}
	c := w.g.cfg
	c.IPv6, c.GatewayIP, c.TAPIP = true, netip.MustParseAddr("fe80::7467"), tapV6
	v6 := New(c, table, w.g.meters, scheduler)
	w.ups[0].V6 = uplinks.Side{State: uplinks.Up, Addresses: []netip.Addr{wan1V6}, GatewayMAC: [6]byte{2, 1}, Generation: 7}
	d := dual{w, NewDualStack(w.g, v6), table}
	d.both.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{&w.ups[0], &w.ups[1]}))
	return d
}

// udpV6 is a datagram of IPv6 in a buffer.
func udpV6(t *testing.T, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, payload string) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	udp := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	eth := &layers.Ethernet{SrcMAC: strangeMAC[:], DstMAC: strangeMAC[:], EthernetType: layers.EthernetTypeIPv6}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		gopacket.Payload(make([]byte, packet.VnetLen)), eth, ip, udp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// lookV6 reads a datagram and fails when its checksum is wrong.
func lookV6(t *testing.T, b []byte) (src, dst netip.AddrPort) {
	t.Helper()
	p := gopacket.NewPacket(b[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
	ip, _ := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ip == nil || udp == nil {
		t.Fatalf("no datagram of IPv6: %v", p)
	}
	pseudo := append(append(append([]byte(nil), ip.SrcIP...), ip.DstIP...), 0, 0, byte(len(ip.Payload)>>8), byte(len(ip.Payload)), 0, 0, 0, 17)
	if sum := wordSum(append(pseudo, ip.Payload...)); sum != 0xffff {
		t.Fatalf("wrong checksum: %v", p)
	}
	from, _ := netip.AddrFromSlice(ip.SrcIP)
	to, _ := netip.AddrFromSlice(ip.DstIP)
	return netip.AddrPortFrom(from, uint16(udp.SrcPort)), netip.AddrPortFrom(to, uint16(udp.DstPort))
}

// TestFamiliesApart: each frame meets the gateway of its family, which uses the uplinks' side to that family.
func TestFamiliesApart(t *testing.T) {
	d := newDual(t)
	b := udpV6(t, insideV6, 4000, serverV6, 53, "question")
	res := d.both.Outbound(b, start)
	d.expect(res, Send, NoReason)
	outside, to := lookV6(t, b)
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
	if from, to := lookV6(t, b); from != netip.AddrPortFrom(serverV6, 53) || to != netip.AddrPortFrom(insideV6, 4000) {
		t.Fatalf("%s to %s", from, to)
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
