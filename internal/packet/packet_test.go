package packet

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"
)

// build serializes layers with gopacket, the independent encoder, over an Ethernet header.
func build(t interface{ Fatal(...any) }, proto layers.IPProtocol, change func(*layers.IPv4), l4 ...gopacket.SerializableLayer) []byte {
	eth := &layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{
		Version: 4, TTL: 63, Protocol: proto, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{198, 51, 100, 7},
	}
	if change != nil {
		change(ip)
	}
	for _, l := range l4 {
		switch l := l.(type) {
		case *layers.TCP:
			_ = l.SetNetworkLayerForChecksum(ip)
		case *layers.UDP:
			_ = l.SetNetworkLayerForChecksum(ip)
		}
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append([]gopacket.SerializableLayer{eth, ip}, l4...)...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestDecodeKinds(t *testing.T) {
	payload := gopacket.Payload("payload")
	udp := &layers.UDP{SrcPort: 4000, DstPort: 53}
	icmp := func(typ, code uint8) *layers.ICMPv4 {
		return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, code), Id: 77, Seq: 1}
	}
	options := func(ip *layers.IPv4) {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	}
	more := func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }
	later := func(ip *layers.IPv4) { ip.FragOffset = 5 }
	df := func(ip *layers.IPv4) { ip.Flags = layers.IPv4DontFragment }
	for _, c := range []struct {
		name  string
		frame []byte
		want  Packet
	}{
		{"udp", build(t, 17, nil, udp, payload), Packet{Kind: UDP, Proto: 17, SrcPort: 4000, DstPort: 53, L4: 34, Len: 35}},
		{"don't fragment", build(t, 17, df, udp, payload),
			Packet{Kind: UDP, Proto: 17, SrcPort: 4000, DstPort: 53, L4: 34, Len: 35, DontFragment: true}},
		{"options", build(t, 17, options, udp, payload),
			Packet{Kind: UDP, Proto: 17, SrcPort: 4000, DstPort: 53, L4: 38, Len: 39, Options: true}},
		{"first fragment", build(t, 17, more, udp, payload), Packet{Kind: Fragment, Proto: 17, L4: 34, Len: 35}},
		{"later fragment", build(t, 17, later, payload), Packet{Kind: Fragment, Proto: 17, L4: 34, Len: 27}},
		{"tcp", build(t, 6, nil, &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 0xfffffffe, Ack: 9, SYN: true, FIN: true, ACK: true}, payload),
			Packet{Kind: TCP, Proto: 6, SrcPort: 1, DstPort: 2, L4: 34, Len: 47, TCPFlags: SYN | FIN | ACK,
				Seq: 0xfffffffe, SeqEnd: 7, Ack: 9}},
		{"echo", build(t, 1, nil, icmp(8, 0), payload),
			Packet{Kind: ICMPQuery, Proto: 1, SrcPort: 77, DstPort: 77, L4: 34, Len: 35, ICMPType: 8}},
		{"unreachable", build(t, 1, nil, icmp(3, 4), payload), Packet{Kind: ICMPError, Proto: 1, L4: 34, Len: 35, ICMPType: 3}},
		{"redirect", build(t, 1, nil, icmp(5, 0), payload), Packet{Kind: OtherProto, Proto: 1, L4: 34, Len: 35, ICMPType: 5}},
		{"gre", build(t, 47, nil, payload), Packet{Kind: Portless, Proto: 47, L4: 34, Len: 27}},
		{"unknown, empty", build(t, 253, nil), Packet{Kind: Portless, Proto: 253, L4: 34, Len: 20}},
		{"udp-lite", build(t, ProtoUDPLite, nil, udp), Packet{Kind: Portless, Proto: ProtoUDPLite, L4: 34, Len: 28}},
		{"short udp-lite", build(t, ProtoUDPLite, nil, payload), Packet{Kind: Malformed, Proto: ProtoUDPLite, L4: 34, Len: 27}},
		{"short dccp", build(t, ProtoDCCP, nil, payload), Packet{Kind: Malformed, Proto: ProtoDCCP, L4: 34, Len: 27}},
		{"igmp", build(t, ProtoIGMP, nil, payload), Packet{Kind: OtherProto, Proto: ProtoIGMP, L4: 34, Len: 27}},
		{"short udp", build(t, 17, nil, gopacket.Payload("1234567")), Packet{Kind: Malformed, Proto: 17, L4: 34, Len: 27}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Src, c.want.Dst, c.want.L3, c.want.TTL = IPv4(0xc0000201), IPv4(0xc6336407), 14, 63
			var got Packet
			got.Decode(c.frame)
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestIsReply(t *testing.T) {
	for typ, want := range map[uint8]bool{ICMPEcho: false, ICMPEchoReply: true, ICMPTimestamp: false, ICMPTimestampReply: true} {
		if p := (Packet{ICMPType: typ}); p.IsReply() != want {
			t.Errorf("type %d: %v", typ, !want)
		}
	}
}

func TestDecodeOtherEthertypes(t *testing.T) {
	frame := make([]byte, 60)
	for ethertype, want := range map[uint16]Kind{0x0806: ARP, 0x86dd: Malformed, 0x8100: NotIP, 0x0800: Malformed} {
		binary.BigEndian.PutUint16(frame[12:], ethertype)
		var p Packet
		p.Decode(frame)
		if v6 := ethertype == 0x86dd; p != (Packet{Kind: want, IPv6: v6, DontFragment: v6}) {
			t.Errorf("ethertype %#x: got %+v, want kind %d alone", ethertype, p, want)
		}
	}
}

// Every cut of a good frame is malformed: lengths that promise more than there is are never believed.
func TestDecodeTruncated(t *testing.T) {
	frame := build(t, 6, nil, &layers.TCP{SrcPort: 1, DstPort: 2}, gopacket.Payload("more than Ethernet pads"))
	for n := range frame {
		var p Packet
		p.Decode(frame[:n:n])
		if p.Kind != Malformed {
			t.Errorf("%d of %d bytes: kind %d", n, len(frame), p.Kind)
		}
	}
}

// FuzzDecode checks that decoding stays inside the frame and that what it promises is there.
func FuzzDecode(f *testing.F) {
	payload := gopacket.Payload("payload")
	f.Add(build(f, 17, nil, &layers.UDP{SrcPort: 1}, payload))
	f.Add(build(f, 6, nil, &layers.TCP{SrcPort: 1, SYN: true}, payload))
	f.Add(build(f, 1, nil, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(11, 0)}, payload))
	f.Add(buildV6(f, 44, 17, append(fragmentV6(60, 0, true), header(17, 1, 0)...), &layers.UDP{SrcPort: 1}, payload))
	f.Add(buildV6(f, 0, 6, append(header(43, 1, 0), header(6, 2, 0)...), &layers.TCP{SrcPort: 1, SYN: true}, payload))
	f.Add(buildV6(f, 58, 58, nil, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}, payload))
	f.Add(build(f, ProtoDCCP, nil, &layers.UDP{SrcPort: 1}, payload))
	f.Add(build(f, 253, nil, payload))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p Packet
		frame = frame[:len(frame):len(frame)]
		p.Decode(frame)
		if p.Kind == Fragment {
			if at := p.Place(frame); at.Offset == 0 {
				p.DecodeFirst(frame)
			}
		}
		switch p.Kind {
		case TCP, UDP, ICMPQuery, ICMPError:
			if end := p.ChecksumOffset() + 2; end > int(p.L3)+int(p.Len) || end > len(frame) {
				t.Fatalf("checksum ends at %d of %d: %+v", end, len(frame), p)
			}
		case Portless:
			if at := p.ChecksumOffset(); at != 0 && at+2 > int(p.L3)+int(p.Len) {
				t.Fatalf("checksum at %d of %d: %+v", at, len(frame), p)
			}
		}
		switch p.Kind {
		case Malformed, NotIP, ARP:
		default:
			if int(p.L4) < int(p.L3)+20 || int(p.L4) > int(p.L3)+int(p.Len) || int(p.L3)+int(p.Len) > len(frame) {
				t.Fatalf("offsets outside %d bytes: %+v", len(frame), p)
			}
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	frame := build(t, 6, nil, &layers.TCP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x"))
	var p Packet
	if n := testing.AllocsPerRun(100, func() { p.Decode(frame) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	frame := build(b, 6, nil, &layers.TCP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x"))
	var p Packet
	for b.Loop() {
		p.Decode(frame)
	}
}

// sumBytes is RFC 1071 written down word by word.
func sumBytes(b []byte) (sum uint32) {
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
		sum = sum&0xffff + sum>>16
	}
	return sum
}

func TestSumIsRFC1071(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "bytes")
		if got, want := Fold(Sum(0, b)), uint16(sumBytes(b)); got != want {
			t.Fatalf("got %#x, want %#x", got, want)
		}
	})
}

// RFC 1624: the incremental update is the full sum, also at the edges 0 and 0xffff.
func TestDeltaIsFullRecompute(t *testing.T) {
	word := rapid.OneOf(rapid.SampledFrom([]uint32{0, 1, 0xffff, 0x10000, 0xffff0000, 0xffffffff}), rapid.Uint32())
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 8, 60).Draw(t, "bytes")
		b[0] |= 1 // like every IP header and pseudo header, not all zero
		before := ^Fold(Sum(0, b))
		var d Delta
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			at, v := 2*rapid.IntRange(1, len(b)/2-2).Draw(t, "at"), word.Draw(t, "word")
			if rapid.Bool().Draw(t, "wide") {
				d.Replace32(binary.BigEndian.Uint32(b[at:]), v)
				binary.BigEndian.PutUint32(b[at:], v)
			} else {
				d.Replace16(binary.BigEndian.Uint16(b[at:]), uint16(v))
				binary.BigEndian.PutUint16(b[at:], uint16(v))
			}
		}
		if got, want := d.Apply(before), ^Fold(Sum(0, b)); got != want {
			t.Fatalf("got %#x, want %#x", got, want)
		}
	})
}

func TestApplySeedIsPseudoHeader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src, dst, to := rapid.Uint32().Draw(t, "src"), rapid.Uint32().Draw(t, "dst"), rapid.Uint32().Draw(t, "to")
		n := rapid.IntRange(8, 65515).Draw(t, "len")
		var d Delta
		d.Replace32(src, to)
		got := d.ApplySeed(Fold(PseudoHeader(IPv4(src), IPv4(dst), ProtoTCP, n)))
		if want := Fold(PseudoHeader(IPv4(to), IPv4(dst), ProtoTCP, n)); got != want {
			t.Fatalf("got %#x, want %#x", got, want)
		}
	})
}

func TestVnetHeader(t *testing.T) {
	h := VnetHeader{VnetNeedsCsum, GSOTCPv4, 0x42, 0x01, 0x84, 0x05, 34, 0, 16, 0}
	if !h.NeedsCsum() || h.GSOType() != GSOTCPv4 || h.HdrLen() != 0x142 || h.GSOSize() != 0x584 || h.CsumStart() != 34 || h.CsumOffset() != 16 {
		t.Errorf("read wrongly: % x", []byte(h))
	}
	h.SetHdrLen(0x134)
	h.SetGSOSize(0x500)
	h.SetCsumStart(20)
	if h.HdrLen() != 0x134 || h.GSOSize() != 0x500 || h.CsumStart() != 20 {
		t.Errorf("written wrongly: % x", []byte(h))
	}
	h.Clear()
	if h.NeedsCsum() || h.GSOType() != GSONone {
		t.Errorf("not cleared: % x", []byte(h))
	}
}
