package tapgw

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

func pairOf(inside, outside string) uplinks.NPTv6 {
	return uplinks.NPTv6{Inside: netip.MustParsePrefix(inside), Outside: netip.MustParsePrefix(outside)}
}

// prefixes is a world with a prefix of its own on each of two uplinks of IPv6.
type prefixes struct{ dual }

func newPrefixes(t *testing.T, change ...func(*nat.Config)) *prefixes {
	t.Helper()
	w := &prefixes{newDual(t, change...)}
	w.ups[1].V6 = uplinks.Side{State: uplinks.Up, Addresses: []netip.Addr{wan2V6}, GatewayMAC: [6]byte{2, 1}, Generation: 8}
	w.ups[0].V6.NPTv6 = []uplinks.NPTv6{pairOf("fd00:1::/48", "2001:db8:100::/48")}
	w.ups[1].V6.NPTv6 = []uplinks.NPTv6{pairOf("fd00:1::/48", "2001:db8:200::/48")}
	w.publishV6()
	return w
}

func (w *prefixes) publishV6() {
	a, b := w.ups[0], w.ups[1]
	w.both.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{&a, &b}))
}

// outV6 handles what leaves, which must go by an uplink, and inV6 what comes; both return what became of the frame.
func (w *prefixes) outV6(b []byte, uplink uint8) []byte {
	w.t.Helper()
	b = clone(b)
	res := w.both.Outbound(b, start)
	w.expect(res, Send, NoReason)
	if res.Uplink != uplink {
		w.t.Fatalf("by uplink %d, want %d", res.Uplink, uplink)
	}
	return b
}

func (w *prefixes) inV6(b []byte, uplink uint8) []byte {
	w.t.Helper()
	b = clone(b)
	w.expect(w.both.Inbound(b, uplink, start), Deliver, NoReason)
	return b
}

func (w *prefixes) droppedIn(b []byte, uplink uint8, why Reason) {
	w.t.Helper()
	w.expect(w.both.Inbound(clone(b), uplink, start), Drop, why)
}

// ends are the addresses of a frame.
func endsOf(b []byte) (src, dst netip.Addr) {
	ip := b[packet.VnetLen+packet.EthernetLen:]
	return netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
}

// transport is what follows the header of IPv6.
func transport(b []byte) []byte { return b[packet.VnetLen+packet.EthernetLen+40:] }

func tcpV6(t *testing.T, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, flags uint8) []byte {
	return buildV6(t, ipV6(src, dst, layers.IPProtocolTCP), &layers.TCP{
		SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: 1000, Ack: 2000, Window: 100,
		FIN: flags&packet.FIN != 0, SYN: flags&packet.SYN != 0, RST: flags&packet.RST != 0, ACK: flags&packet.ACK != 0,
	})
}

func pingV6(t *testing.T, src, dst netip.Addr, kind uint8, id uint16) []byte {
	return buildV6(t, ipV6(src, dst, layers.IPProtocolICMPv6), icmpV6(kind, 0), &layers.ICMPv6Echo{Identifier: id, SeqNumber: 1})
}

func greV6(t *testing.T, src, dst netip.Addr) []byte {
	return buildV6(t, ipV6(src, dst, layers.IPProtocolGRE), gopacket.Payload("sixteen bytes..."))
}

// tooBigV6 is the error of a router about a packet, IPv6 header and all.
func tooBigV6(t *testing.T, from, to netip.Addr, quoted []byte) []byte {
	body := append(binary.BigEndian.AppendUint32(nil, 1300), quoted[packet.VnetLen+packet.EthernetLen:]...)
	return buildV6(t, ipV6(from, to, layers.IPProtocolICMPv6), icmpV6(packet.ICMPv6TooBig, 0), gopacket.Payload(body))
}

// kindsV6 are packets of all kinds from one address to another.
func kindsV6(t *testing.T, src, dst netip.Addr) map[string][]byte {
	return map[string][]byte{
		"udp": udpV6(t, src, 53, dst, 53, "x"), "tcp": tcpV6(t, src, 22, dst, 80, syn), "gre": greV6(t, src, dst),
		"echo": pingV6(t, src, dst, packet.ICMPv6Echo, 7), "esp": buildV6(t, ipV6(src, dst, layers.IPProtocolESP), gopacket.Payload("0123456789abcdef")),
		"extension header": buildV6(t, ipV6(src, dst, 60), gopacket.Payload("\xfd\x00\x01\x04\x00\x00\x00\x00payload")),
	}
}
