package packet

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestPlace(t *testing.T) {
	frame := build(t, 17, func(ip *layers.IPv4) {
		ip.Id, ip.FragOffset, ip.Flags = 0xbeef, 0x1ffe, layers.IPv4MoreFragments
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	}, gopacket.Payload("12345678"))
	var p Packet
	p.Decode(frame)
	if got, want := p.Place(frame), (Place{ID: 0xbeef, Offset: 0x1ffe * 8, Len: 8, More: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSound(t *testing.T) {
	for _, c := range []struct {
		name  string
		proto uint8
		place Place
		want  bool
	}{
		{"first", ProtoUDP, Place{Len: 1480, More: true}, true},
		{"middle", ProtoUDP, Place{Offset: 8, Len: 8, More: true}, true},
		{"last", ProtoUDP, Place{Offset: 1480, Len: 3}, true},
		{"end of the largest", ProtoUDP, Place{Offset: 65512, Len: 3}, true},
		{"beyond the largest", ProtoUDP, Place{Offset: 65512, Len: 4}, false},
		{"odd", ProtoUDP, Place{Offset: 1480, Len: 9, More: true}, false},
		{"empty", ProtoUDP, Place{Offset: 1480}, false},
		{"over TCP flags", ProtoTCP, Place{Offset: 8, Len: 8}, false},
		{"over the end of the TCP header", ProtoTCP, Place{Offset: 16, Len: 8}, false},
		{"behind the TCP header", ProtoTCP, Place{Offset: 24, Len: 8}, true},
	} {
		if got := c.place.Sound(c.proto); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestDecodeFirst(t *testing.T) {
	more := func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }
	udp := build(t, 17, more, &layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload("12345678"))
	udp[38], udp[39] = 0xff, 0xe3 // the length of the whole datagram
	for _, c := range []struct {
		name  string
		frame []byte
		want  Kind
		port  uint16
	}{
		{"udp", udp, UDP, 4000},
		{"tcp", build(t, 6, more, &layers.TCP{SrcPort: 5, SYN: true}, gopacket.Payload("x")), TCP, 5},
		{"echo", build(t, 1, more, &layers.ICMPv4{TypeCode: 8 << 8, Id: 7}), ICMPQuery, 7},
		{"tiny tcp", build(t, 6, more, gopacket.Payload("0123456789abcdef")), Malformed, 0},
		{"tcp options cut", build(t, 6, more, gopacket.Payload("0123456789ab\xf0\x02345678")), Malformed, 0},
		{"tiny udp", build(t, 17, more, gopacket.Payload("1234567")), Malformed, 0},
		{"gre", build(t, 47, more, gopacket.Payload("12345678")), Portless, 0},
		{"tiny udp-lite", build(t, ProtoUDPLite, more, gopacket.Payload("1234567")), Malformed, 0},
		{"igmp", build(t, ProtoIGMP, more, gopacket.Payload("12345678")), OtherProto, 0},
	} {
		var p Packet
		p.Decode(c.frame)
		if p.Kind != Fragment {
			t.Fatalf("%s: kind %d", c.name, p.Kind)
		}
		if p.DecodeFirst(c.frame); p.Kind != c.want || p.Kind != Malformed && p.SrcPort != c.port {
			t.Errorf("%s: kind %d, port %d", c.name, p.Kind, p.SrcPort)
		}
	}
}
