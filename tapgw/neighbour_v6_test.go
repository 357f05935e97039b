package tapgw

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// Addresses of the router on the TAP, beside that of newDual.
var (
	linkRouterV6 = netip.MustParseAddr("fe80::7467")
	routerV6     = tapV6.Prev()
	nobodyV6     = netip.IPv6Unspecified()
	groupV6      = netip.MustParseAddr("ff02::1:ff00:7467") // of the router's link-local address
	otherGroupV6 = netip.MustParseAddr("ff02::1:ff00:7466") // of its other one
)

// ipV6 is an IPv6 header for buildV6.
func ipV6(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// buildV6 makes a buffer: virtio header, Ethernet header, IPv6, layers.
func buildV6(t testing.TB, ip *layers.IPv6, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: strangeMAC[:], DstMAC: strangeMAC[:], EthernetType: layers.EthernetTypeIPv6}
	for _, l := range body {
		if sum, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = sum.SetNetworkLayerForChecksum(ip)
		}
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{gopacket.Payload(make([]byte, packet.VnetLen)), eth, ip}, body...)...)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// icmpV6 is the beginning of an ICMPv6 message.
func icmpV6(icmpType, code uint8) *layers.ICMPv6 {
	return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(icmpType, code)}
}

// solicitation asks for target, with options as they are.
func solicitation(t testing.TB, src, dst, target netip.Addr, options ...byte) []byte {
	body := append(append(make([]byte, 4), target.AsSlice()...), options...)
	return buildV6(t, ipV6(src, dst, layers.IPProtocolICMPv6), icmpV6(135, 0), gopacket.Payload(body))
}

// changed is a frame with the byte at an offset of its IPv6 packet replaced.
func changed(b []byte, at int, to byte) []byte {
	b = clone(b)
	b[packet.VnetLen+packet.EthernetLen+at] = to
	return b
}

// answerTo is what the gateway of IPv6 answers to a frame from the TAP that it ignores otherwise.
func answerTo(t *testing.T, d *dual, b []byte) []byte {
	t.Helper()
	before := clone(b)
	res := d.both.Outbound(b, start)
	if res.Verdict != Ignore || !bytes.Equal(b, before) {
		t.Fatalf("verdict %d, answer % x to % x", res.Verdict, res.Reply, b)
	}
	return res.Reply
}

// checkAdvertisement fails unless b tells the router's MAC to whoever asked, by RFC 4861 §7.2.4. It shares no code with the program.
func checkAdvertisement(t *testing.T, b []byte, target, asked netip.Addr) {
	t.Helper()
	mac, dst, flags := tapMAC, asked, byte(0xe0)
	if asked == nobodyV6 {
		mac, dst, flags = [6]byte{0x33, 0x33, 5: 1}, netip.MustParseAddr("ff02::1"), 0xa0
	}
	want := append(append(append(make([]byte, packet.VnetLen), mac[:]...), gatewayMAC[:]...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	want = append(append(want, target.AsSlice()...), dst.AsSlice()...)
	pseudo := clone(want[len(want)-32:])
	message := append(append([]byte{136, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...), 2, 1)
	message = append(message, gatewayMAC[:]...)
	binary.BigEndian.PutUint16(message[2:], ^wordSum(append(append(pseudo, 0, 0, 0, 32, 0, 0, 0, 58), message...)))
	if want = append(want, message...); !bytes.Equal(b, want) {
		t.Fatalf("answer\n% x, want\n% x", b, want)
	}
}

// TestSolicitations: which neighbour solicitations on the TAP are answered, and how.
func TestSolicitations(t *testing.T) {
	source := []byte{1, 1, 2, 2, 0, 0, 0, 0}
	local := netip.MustParseAddr("fe80::1")
	good := solicitation(t, tapV6, groupV6, linkRouterV6, source...)
	for _, c := range []struct {
		name          string
		frame         []byte
		target, asked netip.Addr // no target: no answer
	}{
		{"to the group", good, linkRouterV6, tapV6},
		{"to the router alone", solicitation(t, local, linkRouterV6, linkRouterV6), linkRouterV6, local},
		{"the router's other address", solicitation(t, tapV6, otherGroupV6, routerV6, source...), routerV6, tapV6},
		{"is the address free", solicitation(t, nobodyV6, groupV6, linkRouterV6), linkRouterV6, nobodyV6},
		{"is it free, with a nonce", solicitation(t, nobodyV6, groupV6, linkRouterV6, 14, 1, 1, 2, 3, 4, 5, 6), linkRouterV6, nobodyV6},
		{"behind an extension header", buildV6(t, ipV6(tapV6, groupV6, 0), gopacket.Payload(extended(t, good))), linkRouterV6, tapV6},

		{"for the host itself", solicitation(t, nobodyV6, groupV6, tapV6), netip.Addr{}, nobodyV6},
		{"for a group", solicitation(t, tapV6, groupV6, groupV6), netip.Addr{}, tapV6},
		{"passed on by a router", changed(good, 7, 254), netip.Addr{}, tapV6},
		{"wrong checksum", changed(good, 42, 0), netip.Addr{}, tapV6},
		{"another code", buildV6(t, ipV6(tapV6, groupV6, 58), icmpV6(135, 1), gopacket.Payload(append(make([]byte, 4), linkRouterV6.AsSlice()...))),
			netip.Addr{}, tapV6},
		{"without a target", buildV6(t, ipV6(tapV6, groupV6, 58), icmpV6(135, 0), gopacket.Payload(make([]byte, 19))), netip.Addr{}, tapV6},
		{"option of length 0", solicitation(t, tapV6, groupV6, linkRouterV6, 1, 0, 2, 2, 0, 0, 0, 0), netip.Addr{}, tapV6},
		{"option beyond the end", solicitation(t, tapV6, groupV6, linkRouterV6, 1, 2, 2, 2, 0, 0, 0, 0), netip.Addr{}, tapV6},
		{"nobody, to the router alone", solicitation(t, nobodyV6, linkRouterV6, linkRouterV6), netip.Addr{}, nobodyV6},
		{"nobody, with a link-layer address", solicitation(t, nobodyV6, groupV6, linkRouterV6, source...), netip.Addr{}, nobodyV6},
		{"from a group", solicitation(t, groupV6, groupV6, linkRouterV6), netip.Addr{}, groupV6},
		{"to another group", solicitation(t, tapV6, netip.MustParseAddr("ff02::1"), linkRouterV6), netip.Addr{}, tapV6},
		{"router solicitation", buildV6(t, ipV6(tapV6, netip.MustParseAddr("ff02::2"), 58), icmpV6(133, 0), gopacket.Payload(make([]byte, 4))),
			netip.Addr{}, tapV6},
		{"listener report", buildV6(t, ipV6(local, netip.MustParseAddr("ff02::16"), 58), icmpV6(143, 0), gopacket.Payload(make([]byte, 24))),
			netip.Addr{}, local},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDual(t)
			b := answerTo(t, &d, c.frame)
			d.both.Drops(func(reason string, n uint64) {
				if n > 0 {
					t.Errorf("counted as %s", reason)
				}
			})
			if c.target.IsValid() {
				checkAdvertisement(t, b, c.target, c.asked)
			} else if b != nil {
				t.Errorf("answer % x", b)
			}
		})
	}
}

// extended is the message of a frame behind an empty hop-by-hop header.
func extended(t testing.TB, b []byte) []byte {
	t.Helper()
	return append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, b[packet.VnetLen+packet.EthernetLen+40:]...)
}

// FuzzSolicitation: whatever comes, the answer is a right advertisement, to a frame that asks for the router and has a right checksum.
func FuzzSolicitation(f *testing.F) {
	for _, b := range [][]byte{
		solicitation(f, tapV6, groupV6, linkRouterV6, 1, 1, 2, 2, 0, 0, 0, 0), solicitation(f, nobodyV6, groupV6, linkRouterV6),
		solicitation(f, tapV6, linkRouterV6, linkRouterV6), solicitation(f, tapV6, groupV6, linkRouterV6, 1, 0),
		solicitation(f, tapV6, otherGroupV6, routerV6, 14, 1, 0, 0, 0, 0, 0, 0, 1, 1),
		buildV6(f, ipV6(tapV6, netip.MustParseAddr("ff02::2"), 58), icmpV6(133, 0), gopacket.Payload(make([]byte, 4))),
	} {
		f.Add(b[packet.VnetLen:])
	}
	hop := solicitation(f, tapV6, groupV6, linkRouterV6)
	f.Add(buildV6(f, ipV6(tapV6, groupV6, 0), gopacket.Payload(extended(f, hop)))[packet.VnetLen:])
	d := newDual(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p packet.Packet
		if p.Decode(frame); p.Kind != packet.Discovery {
			return
		}
		b := answerTo(t, &d, append(make([]byte, packet.VnetLen), frame...))
		if b == nil {
			return
		}
		asked, _ := netip.AddrFromSlice(frame[14+8 : 14+24])
		target := netip.AddrFrom16([16]byte(b[packet.VnetLen+14+8:]))
		if !bytes.Contains(frame, target.AsSlice()) || frame[14+7] != 255 || target != linkRouterV6 && target != routerV6 {
			t.Fatalf("answer % x", b)
		}
		checkAdvertisement(t, b, target, asked)
	})
}
