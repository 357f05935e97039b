package nat

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

// flow is a packet to be built by gopacket, the independent encoder.
type flow struct {
	proto            uint8
	src, dst         packet.Addr
	srcPort, dstPort uint16
	icmpType         uint8
	options          int // 32-bit words of IPv4 options
	mutate           func(*layers.IPv4)
	payload          []byte
}

func ipOf(a packet.Addr) net.IP { return a.Netip().AsSlice() }

func (f flow) layers() []gopacket.SerializableLayer {
	ip := &layers.IPv4{Version: 4, TTL: 60, Id: 7, Protocol: layers.IPProtocol(f.proto), SrcIP: ipOf(f.src), DstIP: ipOf(f.dst)}
	for range f.options {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 1}})
	}
	if f.mutate != nil {
		f.mutate(ip)
	}
	var l4 gopacket.SerializableLayer
	switch f.proto {
	case protoTCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(f.srcPort), DstPort: layers.TCPPort(f.dstPort), Seq: 77, Ack: 88, ACK: true, Window: 500}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		l4 = tcp
	case protoUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(f.srcPort), DstPort: layers.UDPPort(f.dstPort)}
		_ = udp.SetNetworkLayerForChecksum(ip)
		l4 = udp
	case protoICMP:
		l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(f.icmpType, 0), Id: f.srcPort, Seq: 5}
	case packet.ProtoUDPLite, packet.ProtoDCCP:
		return []gopacket.SerializableLayer{ip, gopacket.Payload(f.summed())}
	default:
		return []gopacket.SerializableLayer{ip, gopacket.Payload(f.payload)}
	}
	return []gopacket.SerializableLayer{ip, l4, gopacket.Payload(f.payload)}
}

func serialize(t interface{ Fatal(...any) }, list ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, list...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

// summed is a payload with ports and a checksum over all of it, as DCCP and UDP-Lite have it; gopacket knows neither.
func (f flow) summed() []byte {
	b := append([]byte{0, 7, 0, 9, 0, 0, 0, 0}, f.payload...)
	sum := ^packet.Fold(packet.Sum(packet.PseudoHeader(f.src, f.dst, f.proto, len(b)), b))
	if f.proto == packet.ProtoUDPLite && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// packet is the IPv4 packet, without Ethernet.
func (f flow) packet(t interface{ Fatal(...any) }) []byte {
	b := serialize(t, f.layers()...)
	if at := 20 + 4*f.options + 6; f.proto == protoUDP && b[at] == 0 && b[at+1] == 0 {
		b[at], b[at+1] = 0xff, 0xff // gopacket does not know RFC 768's rule
	}
	return b
}

// frame is the packet behind an Ethernet header, decoded.
func (f flow) frame(t interface{ Fatal(...any) }) ([]byte, *packet.Packet) {
	frame := append([]byte{0: 2, 6: 2, 12: 8, 13: 0}, f.packet(t)...)
	var p packet.Packet
	p.Decode(frame)
	return frame, &p
}

func drawFlow(t *rapid.T) flow {
	size := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(60000, 65400)).Draw(t, "size")
	seed := rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "payload")
	f := flow{
		proto: rapid.SampledFrom([]uint8{protoTCP, protoUDP, protoICMP, 47, packet.ProtoUDPLite, packet.ProtoDCCP}).Draw(t, "proto"),
		src:   packet.IPv4(rapid.Uint32().Draw(t, "src")), dst: packet.IPv4(rapid.Uint32().Draw(t, "dst")),
		srcPort: rapid.Uint16().Draw(t, "src port"), dstPort: rapid.Uint16().Draw(t, "dst port"),
		options: rapid.IntRange(0, 10).Draw(t, "options"),
		payload: bytes.Repeat(seed, size/len(seed)+1)[:size],
	}
	return f
}

func drawTranslation(t *rapid.T) *Translation {
	return &Translation{
		Key:     Key{Inside: packet.IPv4(rapid.Uint32().Draw(t, "inside")), InsidePort: rapid.Uint16().Draw(t, "inside port")},
		Outside: packet.IPv4(rapid.Uint32().Draw(t, "outside")), OutsidePort: rapid.Uint16().Draw(t, "outside port"),
	}
}

// translated is f as the far side of the translation should see it.
func (f flow) translated(tr *Translation, d direction) flow {
	if d == outbound {
		f.src = tr.Outside
		if f.srcPort = tr.OutsidePort; f.proto == protoICMP {
			f.dstPort = tr.OutsidePort
		}
		return f
	}
	f.dst = tr.Inside
	if f.dstPort = tr.InsidePort; f.proto == protoICMP {
		f.srcPort = tr.InsidePort
	}
	return f
}

func rewriteTo(frame []byte, p *packet.Packet, tr *Translation, d direction, partial bool) bool {
	if d == outbound {
		return RewriteOut(frame, p, tr, partial)
	}
	return RewriteIn(frame, p, tr, partial)
}

// A rewritten frame is byte for byte the frame an independent encoder builds for the translated addresses.
func TestRewriteEqualsFullRecompute(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f, tr := drawFlow(rt), drawTranslation(rt)
		d := direction(rapid.IntRange(0, 1).Draw(rt, "direction"))
		if f.proto == protoICMP {
			f.icmpType, f.dstPort = rapid.SampledFrom([]uint8{0, 8, 13, 14}).Draw(rt, "type"), f.srcPort
		}
		frame, p := f.frame(rt)
		if !rewriteTo(frame, p, tr, d, false) {
			rt.Fatal("refused")
		}
		want, wantP := f.translated(tr, d).frame(rt)
		if !bytes.Equal(frame, want) {
			rt.Fatalf("headers\n% x\n% x", frame[:min(len(frame), 90)], want[:min(len(want), 90)])
		}
		if p.Src != wantP.Src || p.Dst != wantP.Dst || HasPorts(f.proto) && (p.SrcPort != wantP.SrcPort || p.DstPort != wantP.DstPort) {
			rt.Fatalf("decoded %+v, want %+v", p, wantP)
		}
	})
}

// A partial checksum is the sum of the new pseudo header afterwards, whatever the ports.
func TestRewritePartialChecksum(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f, tr := drawFlow(rt), drawTranslation(rt)
		f.proto = rapid.SampledFrom([]uint8{protoTCP, protoUDP, packet.ProtoUDPLite, packet.ProtoDCCP}).Draw(rt, "with a pseudo header")
		d := direction(rapid.IntRange(0, 1).Draw(rt, "direction"))
		frame, p := f.frame(rt)
		seed := func(f flow) uint16 {
			return packet.Fold(packet.PseudoHeader(f.src, f.dst, f.proto, int(p.Len)-20-4*f.options))
		}
		at := p.ChecksumOffset()
		binary.BigEndian.PutUint16(frame[at:], seed(f))
		rewriteTo(frame, p, tr, d, true)
		want, _ := f.translated(tr, d).frame(rt)
		binary.BigEndian.PutUint16(want[at:], seed(f.translated(tr, d)))
		if !bytes.Equal(frame, want) {
			rt.Fatalf("headers\n% x\n% x", frame[:min(len(frame), 90)], want[:min(len(want), 90)])
		}
	})
}

// RFC 768: no checksum stays none, and a sum of zero is sent as 0xffff.
func TestRFC768_UDPChecksumZero(t *testing.T) {
	f := flow{proto: protoUDP, src: host, dst: web, srcPort: 1, dstPort: 2, payload: []byte{1, 2, 3}}
	tr := &Translation{Outside: out1, OutsidePort: 9}
	frame, p := f.frame(t)
	at := p.ChecksumOffset()
	binary.BigEndian.PutUint16(frame[at:], 0)
	if RewriteOut(frame, p, tr, false); binary.BigEndian.Uint16(frame[at:]) != 0 {
		t.Error("a packet without checksum got one")
	}
	frame, p = f.frame(t)
	sum := binary.BigEndian.Uint16(frame[at:])
	var d packet.Delta
	d.Replace32(host.V4(), out1.V4())
	tr.OutsidePort = f.srcPort + d.Apply(sum) // the port that makes the sum zero
	if d.Replace16(1, tr.OutsidePort); d.Apply(sum) != 0 {
		t.Fatalf("the test's port gives %#x", d.Apply(sum))
	}
	if RewriteOut(frame, p, tr, false); binary.BigEndian.Uint16(frame[at:]) != 0xffff {
		t.Errorf("zero sum sent as %#x", binary.BigEndian.Uint16(frame[at:]))
	}
}

// Fragments: the first carries ports and the checksum of the whole, later ones only addresses.
func TestRewriteFragments(t *testing.T) {
	tr := &Translation{Outside: out1, OutsidePort: 9}
	first := flow{proto: protoUDP, src: host, dst: web, srcPort: 1, dstPort: 2, payload: make([]byte, 40),
		mutate: func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }}
	later := flow{proto: protoUDP, src: host, dst: web, srcPort: 1, dstPort: 2, payload: make([]byte, 40),
		mutate: func(ip *layers.IPv4) { ip.FragOffset = 10 }}
	frame, p := first.frame(t)
	if ok := RewriteOut(frame, p, tr, false); !ok {
		t.Fatal("first fragment refused")
	}
	if want, _ := first.translated(tr, outbound).frame(t); !bytes.Equal(frame, want) {
		t.Errorf("first fragment\n% x\n% x", frame, want)
	}
	frame, p = later.frame(t)
	payload := bytes.Clone(frame[p.L4:])
	if ok := RewriteOut(frame, p, tr, false); !ok || !bytes.Equal(payload, frame[p.L4:]) || p.Src != out1 {
		t.Error("later fragment refused, or its payload changed")
	}
	if packet.Fold(packet.Sum(0, frame[14:34])) != 0xffff {
		t.Error("header checksum of the later fragment")
	}
	for proto, shortest := range map[uint8]int{protoTCP: 18, protoUDP: 8, protoICMP: 8} {
		for n := range 24 {
			tiny := flow{proto: 47, src: host, dst: web, payload: append([]byte{8}, make([]byte, n)...)[:n], mutate: func(ip *layers.IPv4) {
				ip.Flags, ip.Protocol = layers.IPv4MoreFragments, layers.IPProtocol(proto)
			}}
			frame, p := tiny.frame(t)
			before := bytes.Clone(frame)
			ok := RewriteOut(frame, p, tr, false)
			if ok != (n >= shortest) || !ok && !bytes.Equal(before, frame) {
				t.Errorf("protocol %d, first fragment of %d bytes: rewritten %v", proto, n, ok)
			}
		}
	}
}

func TestRewriteRefusesErrorsAndGarbage(t *testing.T) {
	frame := make([]byte, 64)
	for _, k := range []packet.Kind{packet.Malformed, packet.NotIP, packet.ARP, packet.ICMPError} {
		if RewriteOut(frame, &packet.Packet{Kind: k}, &Translation{}, false) || RewriteIn(frame, &packet.Packet{Kind: k}, &Translation{}, false) {
			t.Errorf("kind %d rewritten", k)
		}
	}
}

func TestRewriteAllocatesNothing(t *testing.T) {
	frame, p := flow{proto: protoTCP, src: host, dst: web, srcPort: 1, dstPort: 2, payload: make([]byte, 100)}.frame(t)
	tr := &Translation{Key: key(protoTCP, 1, web, 2), Outside: out1, OutsidePort: 9}
	if n := testing.AllocsPerRun(100, func() {
		RewriteOut(frame, p, tr, false)
		RewriteIn(frame, p, tr, true)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRewrite: whatever is decoded can be rewritten without leaving the frame, and intact checksums stay intact.
func FuzzRewrite(f *testing.F) {
	for _, proto := range []uint8{protoTCP, protoUDP, protoICMP, 47, packet.ProtoUDPLite} {
		frame, _ := flow{proto: proto, src: host, dst: web, srcPort: 1, dstPort: 2, icmpType: 8, options: 1, payload: []byte("payload")}.frame(f)
		f.Add(frame, out1.V4(), uint16(9), true, false)
	}
	for _, proto := range []uint8{protoTCP, protoUDP, protoICMPv6} {
		frame, _ := flowV6{proto: proto, src: v6(host), dst: v6(web), srcPort: 1, dstPort: 2, icmpType: 128, payload: []byte("payload")}.frame(f)
		f.Add(frame, out1.V4(), uint16(9), true, false)
	}
	f.Fuzz(func(t *testing.T, frame []byte, number uint32, port uint16, out, partial bool) {
		addr := packet.IPv4(number)
		var p packet.Packet
		frame = bytes.Clone(frame)
		p.Decode(frame[:len(frame):len(frame)])
		intact := intactIP(frame, &p)
		tr := &Translation{Key: Key{Inside: addr, InsidePort: port}, Outside: addr, OutsidePort: port}
		d := inbound
		if out {
			d = outbound
		}
		if rewriteTo(frame, &p, tr, d, partial) && intact && !intactIP(frame, &p) {
			t.Fatalf("header checksum broken: % x", frame)
		}
	})
}

func intactIP(frame []byte, p *packet.Packet) bool {
	return !p.IPv6 && p.L3 != 0 && packet.Fold(packet.Sum(0, frame[p.L3:p.L4])) == 0xffff
}
