package packet

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

var srcV6, dstV6 = netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:f::1")

// buildV6 serializes layers with gopacket over Ethernet and IPv6 headers; chain stands between, and its first byte is next.
func buildV6(t interface{ Fatal(...any) }, first, last layers.IPProtocol, chain []byte, l4 ...gopacket.SerializableLayer) []byte {
	eth := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv6}
	ip := &layers.IPv6{Version: 6, HopLimit: 63, NextHeader: last, SrcIP: srcV6.AsSlice(), DstIP: dstV6.AsSlice()}
	for _, l := range l4 {
		if sum, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = sum.SetNetworkLayerForChecksum(ip)
		}
	}
	body := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(body, opts, l4...); err != nil {
		t.Fatal(err)
	}
	ip.NextHeader = first
	all := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(all, opts, eth, ip, gopacket.Payload(append(chain, body.Bytes()...))); err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}

// header is an extension header of 8×units bytes with a type-specific fourth byte.
func header(next, units, fourth byte) []byte {
	b := make([]byte, 8*int(units))
	b[0], b[1], b[3] = next, units-1, fourth
	return b
}

// fragmentV6 is a Fragment header.
func fragmentV6(next byte, offset uint16, more bool) []byte {
	b := []byte{next, 0, 0, 0, 0x12, 0x34, 0x56, 0x78}
	if more {
		offset |= 1
	}
	binary.BigEndian.PutUint16(b[2:], offset)
	return b
}

func TestDecodeIPv6(t *testing.T) {
	udp := []gopacket.SerializableLayer{&layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload("payload")}
	echo := []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 77, SeqNumber: 1},
	}
	message := func(kind uint8) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, gopacket.Payload(make([]byte, 48))}
	}
	tcp := []gopacket.SerializableLayer{&layers.TCP{SrcPort: 1, DstPort: 2, Seq: 9, Ack: 10, SYN: true, ACK: true}}
	isUDP := Packet{Kind: UDP, Proto: 17, SrcPort: 4000, DstPort: 53}
	chain := bytes.Join([][]byte{header(43, 1, 0), header(60, 2, 0), header(17, 3, 0)}, nil)
	for name, c := range map[string]struct {
		frame []byte
		want  Packet
		skip  int // bytes of extension headers
	}{
		"udp":                  {buildV6(t, 17, 17, nil, udp...), isUDP, 0},
		"tcp":                  {buildV6(t, 6, 6, nil, tcp...), Packet{Kind: TCP, Proto: 6, SrcPort: 1, DstPort: 2, TCPFlags: SYN | ACK, Seq: 9, SeqEnd: 10, Ack: 10}, 0},
		"echo":                 {buildV6(t, 58, 58, nil, echo...), Packet{Kind: ICMPQuery, Proto: 58, SrcPort: 77, DstPort: 77, ICMPType: 128}, 0},
		"too big":              {buildV6(t, 58, 58, nil, message(2)...), Packet{Kind: ICMPError, Proto: 58, ICMPType: 2}, 0},
		"solicitation":         {buildV6(t, 58, 58, nil, message(135)...), Packet{Kind: Discovery, Proto: 58, ICMPType: 135}, 0},
		"listener":             {buildV6(t, 0, 58, header(58, 1, 0), message(143)...), Packet{Kind: Discovery, Proto: 58, ICMPType: 143}, 8},
		"unknown ICMPv6":       {buildV6(t, 58, 58, nil, message(200)...), Packet{Kind: OtherProto, Proto: 58, ICMPType: 200}, 0},
		"ICMP of IPv4":         {buildV6(t, 1, 1, nil, gopacket.Payload("12345678")), Packet{Kind: OtherProto, Proto: 1}, 0},
		"no next header":       {buildV6(t, 59, 59, nil), Packet{Kind: Portless, Proto: 59}, 0},
		"three extensions":     {buildV6(t, 0, 17, chain, udp...), isUDP, 48},
		"alone, as a fragment": {buildV6(t, 44, 17, fragmentV6(17, 0, false), udp...), isUDP, 8},
		"first fragment":       {buildV6(t, 44, 17, fragmentV6(17, 0, true), udp...), Packet{Kind: Fragment, Proto: 17}, 8},
		"later fragment":       {buildV6(t, 44, 17, fragmentV6(60, 64, false), udp...), Packet{Kind: Fragment, Proto: 60}, 8},
		"first, then options":  {buildV6(t, 44, 17, append(fragmentV6(60, 0, true), header(17, 1, 0)...), udp...), Packet{Kind: Fragment, Proto: 17}, 16},
	} {
		t.Run(name, func(t *testing.T) {
			want := c.want
			want.Src, want.Dst, want.L3, want.TTL, want.IPv6, want.DontFragment = AddrOf(srcV6), AddrOf(dstV6), 14, 63, true, true
			want.L4, want.Len, want.Options = uint16(54+c.skip), uint32(40+binary.BigEndian.Uint16(c.frame[18:])), c.skip > 0
			var got Packet
			got.Decode(c.frame)
			if c.frame[20] == 44 {
				want.Frag = 54
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if want.Kind == ICMPQuery && got.IsReply() {
				t.Error("a request is a reply")
			}
		})
	}
}

// TestRefusedIPv6: what is contradictory, incomplete, or would go elsewhere than its destination.
func TestRefusedIPv6(t *testing.T) {
	udp := []gopacket.SerializableLayer{&layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload("payload")}
	long := bytes.Repeat(header(60, 1, 0), maxExtensions+1)
	mapped := buildV6(t, 17, 17, nil, udp...)
	copy(mapped[22:], append(make([]byte, 10), 0xff, 0xff, 10, 0, 0, 1))
	for name, frame := range map[string][]byte{
		"source route":             buildV6(t, 43, 17, header(17, 1, 1), udp...),
		"hop-by-hop later":         buildV6(t, 60, 17, append(header(0, 1, 0), header(17, 1, 0)...), udp...),
		"header beyond the end":    buildV6(t, 60, 17, []byte{17, 200, 0, 0, 0, 0, 0, 0}, udp...),
		"too many headers":         buildV6(t, 60, 17, long, udp...),
		"too long a chain":         buildV6(t, 60, 17, append(append(header(60, 255, 0), header(60, 255, 0)...), header(17, 255, 0)...), udp...),
		"two fragment headers":     buildV6(t, 44, 17, append(fragmentV6(44, 0, true), fragmentV6(17, 0, true)...), udp...),
		"fragment header cut":      buildV6(t, 44, 17, []byte{17, 0, 0, 1}),
		"first without its header": buildV6(t, 44, 17, append(fragmentV6(60, 0, true), 17, 9, 0, 0, 0, 0, 0, 0)),
		"mapped source":            mapped,
		"short ICMPv6":             buildV6(t, 58, 58, nil, gopacket.Payload("1234567")),
	} {
		var p Packet
		if p.Decode(frame); p.Kind != Malformed {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// TestPlaceIPv6: where a fragment belongs, and how large its payload is.
func TestPlaceIPv6(t *testing.T) {
	frame := buildV6(t, 60, 17, append(header(44, 1, 0), fragmentV6(17, 1448, true)...), gopacket.Payload(make([]byte, 64)))
	var p Packet
	p.Decode(frame)
	want := Place{ID: 0x12345678, Offset: 1448, Len: 64, More: true}
	if got := p.Place(frame); p.Kind != Fragment || got != want || !got.Sound(p.Proto) {
		t.Errorf("kind %d, %+v, want %+v", p.Kind, got, want)
	}
	first := buildV6(t, 44, 17, fragmentV6(17, 0, true), &layers.UDP{SrcPort: 4000, DstPort: 53, Length: 3000}, gopacket.Payload(make([]byte, 64)))
	p.Decode(first)
	if p.DecodeFirst(first); p.Kind != UDP || p.DstPort != 53 {
		t.Errorf("first fragment: %+v", p)
	}
}

// TestPseudoHeaderIPv6: an independent encoder's checksums are right by ours.
func TestPseudoHeaderIPv6(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := gopacket.Payload(rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "payload"))
		frame := buildV6(t, 6, 6, nil, &layers.TCP{SrcPort: layers.TCPPort(rapid.Uint16().Draw(t, "port")), DstPort: 2}, payload)
		var p Packet
		p.Decode(frame)
		l4 := frame[p.L4:]
		if got := Fold(Sum(PseudoHeader(p.Src, p.Dst, p.Proto, len(l4)), l4)); got != 0xffff {
			t.Errorf("sum %#x", got)
		}
	})
}
