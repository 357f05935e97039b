package nat

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

// v6 is the address of IPv6 that stands for one of IPv4 in tests of both.
func v6(a packet.Addr) packet.Addr { return packet.Addr{Hi: 0x20010db8 << 32, Lo: uint64(a.V4())} }

// widen makes a key or binding of IPv4 one of IPv6.
func widen(k Key) Key {
	k.Inside, k.Remote = v6(k.Inside), v6(k.Remote)
	if k.Proto == protoICMP {
		k.Proto = protoICMPv6
	}
	return k
}

func widenBinding(b Binding) Binding {
	var list []packet.Addr
	for _, a := range b.Addresses {
		list = append(list, v6(a))
	}
	b.Addresses = list
	return b
}

// flowV6 is a packet of IPv6 to be built by gopacket.
type flowV6 struct {
	proto            uint8
	src, dst         packet.Addr
	srcPort, dstPort uint16
	icmpType         uint8
	chain            []byte // extension headers, the last of which names the protocol
	first            uint8  // number of the first of them
	payload          []byte
}

// packet is the IPv6 packet, without Ethernet.
func (f flowV6) packet(t interface{ Fatal(...any) }) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocol(f.proto), SrcIP: ipOf(f.src), DstIP: ipOf(f.dst)}
	var l4 []byte
	switch f.proto {
	case protoTCP:
		tcp := &layers.TCP{SrcPort: layers.TCPPort(f.srcPort), DstPort: layers.TCPPort(f.dstPort), Seq: 77, Ack: 88, ACK: true, Window: 500}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		l4 = serialize(t, tcp, gopacket.Payload(f.payload))
	case protoUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(f.srcPort), DstPort: layers.UDPPort(f.dstPort)}
		_ = udp.SetNetworkLayerForChecksum(ip)
		if l4 = serialize(t, udp, gopacket.Payload(f.payload)); l4[6]|l4[7] == 0 {
			l4[6], l4[7] = 0xff, 0xff
		}
	case protoICMPv6:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(f.icmpType, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		l4 = serialize(t, icmp, &layers.ICMPv6Echo{Identifier: f.srcPort, SeqNumber: 5}, gopacket.Payload(f.payload))
	default:
		l4 = f.payload
	}
	if f.chain != nil {
		ip.NextHeader = layers.IPProtocol(f.first)
	}
	return serialize(t, ip, gopacket.Payload(append(bytes.Clone(f.chain), l4...)))
}

// frame is the packet behind an Ethernet header, decoded.
func (f flowV6) frame(t interface{ Fatal(...any) }) ([]byte, *packet.Packet) {
	frame := append([]byte{0: 2, 6: 2, 12: 0x86, 13: 0xdd}, f.packet(t)...)
	var p packet.Packet
	p.Decode(frame)
	return frame, &p
}

// translated is f as the far side of the translation should see it.
func (f flowV6) translated(tr *Translation, d direction) flowV6 {
	if d == outbound {
		f.src, f.srcPort = tr.Outside, tr.OutsidePort
		return f
	}
	if f.dst, f.dstPort = tr.Inside, tr.InsidePort; f.proto == protoICMPv6 {
		f.srcPort = tr.InsidePort
	}
	return f
}

func drawV6(t *rapid.T, what string) packet.Addr {
	return packet.Addr{Hi: 0x20010db8<<32 | uint64(rapid.Uint32().Draw(t, what)), Lo: rapid.Uint64().Draw(t, what+" below")}
}

func drawTranslationV6(t *rapid.T) *Translation {
	return &Translation{
		Key:     Key{Inside: drawV6(t, "inside"), Remote: v6(web), InsidePort: rapid.Uint16().Draw(t, "inside port")},
		Outside: drawV6(t, "outside"), OutsidePort: rapid.Uint16().Draw(t, "outside port"),
	}
}

func drawFlowV6(t *rapid.T) flowV6 {
	f := flowV6{
		proto: rapid.SampledFrom([]uint8{protoTCP, protoUDP, protoICMPv6, 47}).Draw(t, "proto"), icmpType: packet.ICMPv6Echo,
		src: drawV6(t, "src"), dst: drawV6(t, "dst"),
		srcPort: rapid.Uint16().Draw(t, "src port"), dstPort: rapid.Uint16().Draw(t, "dst port"),
		payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
	}
	if n := rapid.IntRange(0, 3).Draw(t, "extensions"); n > 0 {
		f.first = 60
		for i := range n {
			next := byte(60)
			if i == n-1 {
				next = f.proto
			}
			f.chain = append(f.chain, next, 0, 1, 4, 0, 0, 0, 0)
		}
	}
	return f
}

// TestRewriteIPv6: a rewritten frame is byte for byte the one that an independent encoder builds for the translated addresses.
func TestRewriteIPv6(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f, tr := drawFlowV6(rt), drawTranslationV6(rt)
		d := direction(rapid.IntRange(0, 1).Draw(rt, "direction"))
		if d == inbound {
			f.icmpType = packet.ICMPv6EchoReply
		}
		if f.proto == 47 {
			tr.InsidePort, tr.OutsidePort = 0, 0
		}
		frame, p := f.frame(rt)
		want, _ := f.translated(tr, d).frame(rt)
		if !rewriteTo(frame, p, tr, d, false) || !bytes.Equal(frame, want) {
			rt.Fatalf("%+v\ngot  %x\nwant %x", *p, frame, want)
		}
		var again packet.Packet
		if again.Decode(frame); again.Src != p.Src || again.Dst != p.Dst {
			rt.Fatalf("decoded %+v, kept %+v", again, *p)
		}
	})
}

// TestRewritePartialIPv6: what is left to the device is the sum of the new pseudo header.
func TestRewritePartialIPv6(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f, tr := drawFlowV6(rt), drawTranslationV6(rt)
		f.proto, f.chain = rapid.SampledFrom([]uint8{protoTCP, protoUDP}).Draw(rt, "tcp or udp"), nil
		frame, p := f.frame(rt)
		seed := func(src packet.Addr) uint16 {
			return packet.Fold(packet.PseudoHeader(src, f.dst, f.proto, int(p.Len)-40))
		}
		at := p.ChecksumOffset()
		binary.BigEndian.PutUint16(frame[at:], seed(f.src))
		RewriteOut(frame, p, tr, true)
		if got, want := binary.BigEndian.Uint16(frame[at:]), seed(tr.Outside); got != want && got^want != 0xffff {
			rt.Fatalf("seed %#x, want %#x", got, want)
		}
	})
}

// reportV6 is an ICMPv6 error with a quote.
func reportV6(t interface{ Fatal(...any) }, from, to packet.Addr, kind uint8, word uint32, quoted []byte) ([]byte, *packet.Packet) {
	ip := &layers.IPv6{Version: 6, HopLimit: 50, NextHeader: layers.IPProtocolICMPv6, SrcIP: ipOf(from), DstIP: ipOf(to)}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	body := append(binary.BigEndian.AppendUint32(nil, word), quoted...)
	frame := append([]byte{0: 2, 6: 2, 12: 0x86, 13: 0xdd}, serialize(t, ip, icmp, gopacket.Payload(body))...)
	var p packet.Packet
	p.Decode(frame)
	return frame, &p
}

// TestErrorsIPv6: errors of any size of quote, in both directions, become exactly the error that an independent encoder builds
// over the packet as the other side knows it.
func TestErrorsIPv6(t *testing.T) {
	sender := v6(router)
	rapid.Check(t, func(rt *rapid.T) {
		tr, f := drawTranslationV6(rt), drawFlowV6(rt)
		tr.Proto, tr.RemotePort = f.proto, f.dstPort
		if f.proto == protoICMPv6 {
			tr.RemotePort = 0
		}
		if f.proto == 47 {
			tr.InsidePort, tr.OutsidePort, tr.RemotePort = 0, 0, 0
		}
		out := f
		out.src, out.srcPort, out.dst = tr.Outside, tr.OutsidePort, tr.Remote
		back := f
		back.src, back.dst, back.srcPort, back.dstPort, back.icmpType = tr.Remote, tr.Inside, f.dstPort, tr.InsidePort, packet.ICMPv6EchoReply
		if f.proto == protoICMPv6 {
			back.srcPort = tr.InsidePort
		}
		kind := rapid.Uint8Range(1, 4).Draw(rt, "type")
		word := map[uint8]uint32{2: 1280, 4: 40}[kind]
		cut := rapid.IntRange(0, 60).Draw(rt, "cut")
		quoteOf := func(f flowV6) []byte {
			b, headers := f.packet(rt), 40+len(f.chain)
			n := min(len(b), max(headers+8, len(b)-cut))
			if n == headers+17 {
				n-- // half of a TCP checksum cannot be set right
			}
			return b[:n]
		}
		frame, p := reportV6(rt, sender, tr.Outside, kind, word, quoteOf(out))
		if k, ok := QuotedKeyIn(frame, p, isp1); !ok || k != (InKey{tr.Outside, tr.Remote, tr.OutsidePort, tr.RemotePort, tr.Proto, isp1}) {
			rt.Fatalf("inbound: key %+v, %v", k, ok)
		}
		want, _ := reportV6(rt, sender, tr.Inside, kind, word, quoteOf(out.translated(&Translation{Outside: tr.Inside, OutsidePort: tr.InsidePort}, outbound)))
		if !RewriteErrorIn(frame, p, tr) || !bytes.Equal(frame, want) {
			rt.Fatalf("inbound:\ngot  %x\nwant %x", frame, want)
		}
		frame, p = reportV6(rt, tr.Inside, tr.Remote, kind, word, quoteOf(back))
		if k, ok := QuotedKeyOut(frame, p); !ok || k != tr.Key {
			rt.Fatalf("outbound: key %+v, %v, want %+v", k, ok, tr.Key)
		}
		want, _ = reportV6(rt, tr.Outside, tr.Remote, kind, word, quoteOf(back.translated(&Translation{Key: Key{Inside: tr.Outside, InsidePort: tr.OutsidePort}}, inbound)))
		if !RewriteErrorOut(frame, p, tr) || !bytes.Equal(frame, want) {
			rt.Fatalf("outbound:\ngot  %x\nwant %x", frame, want)
		}
	})
}

// TestBrokenQuotesIPv6: what is damaged, truncated or none of ours changes nothing.
func TestBrokenQuotesIPv6(t *testing.T) {
	tr := &Translation{Key: widen(key(protoUDP, 4000, web, 53)), Outside: v6(out1), OutsidePort: 777}
	out := flowV6{proto: protoUDP, src: tr.Outside, srcPort: 777, dst: tr.Remote, dstPort: 53, payload: []byte("payload")}
	whole := out.packet(t)
	later := flowV6{proto: protoUDP, src: tr.Outside, dst: tr.Remote, first: 44, chain: []byte{17, 0, 0, 64, 0, 0, 0, 1}, payload: make([]byte, 64)}
	for name, c := range map[string]struct {
		quoted []byte
		spoil  func([]byte)
	}{
		"checksum":         {whole, func(f []byte) { f[60] ^= 1 }},
		"version":          {append([]byte{0x45}, whole[1:]...), nil},
		"ports cut off":    {whole[:47], nil},
		"header cut off":   {whole[:30], nil},
		"later fragment":   {later.packet(t), nil},
		"another source":   {flowV6{proto: protoUDP, src: v6(out2), dst: tr.Remote}.packet(t), nil},
		"routed elsewhere": {flowV6{proto: protoUDP, src: tr.Outside, dst: tr.Remote, first: 43, chain: []byte{17, 0, 0, 1, 0, 0, 0, 0}}.packet(t), nil},
	} {
		frame, p := reportV6(t, v6(router), tr.Outside, 1, 0, c.quoted)
		if c.spoil != nil {
			c.spoil(frame)
		}
		before := bytes.Clone(frame)
		if k, ok := QuotedKeyIn(frame, p, isp1); ok {
			t.Errorf("%s: key %+v", name, k)
		}
		if RewriteErrorIn(frame, p, tr) || !bytes.Equal(frame, before) {
			t.Errorf("%s: rewritten", name)
		}
	}
}

// TestTableIPv6: a table of IPv6 does what one of IPv4 does: sessions are found both ways, endpoints keep their mapping, idle
// ones end and their ports rest.
func TestTableIPv6(t *testing.T) {
	table := newTable(t, func(c *Config) { c.IPv6 = true })
	b := widenBinding(bind1)
	var refs []Ref
	for i, proto := range []uint8{protoTCP, protoUDP, protoICMP, 47} {
		k := widen(key(proto, 4000, web, 53))
		if k.Proto == 47 {
			k.InsidePort, k.RemotePort = 0, 0
		}
		r := mustOpen(t, table, k, b, after(0))
		refs = append(refs, r)
		tr := table.Translation(r)
		if tr.Key != k || tr.Outside != b.Addresses[0] || table.FindOut(k) != r || table.FindIn(tr.InKey()) != r {
			t.Errorf("%d: %+v", i, tr)
		}
		other := tr.InKey()
		other.Remote.Hi++
		if table.FindIn(other) != 0 {
			t.Errorf("%d: found for another remote", i)
		}
	}
	k := widen(key(protoUDP, 4000, peer, 53))
	if first, second := table.Translation(refs[1]), table.Translation(mustOpen(t, table, k, b, after(0))); first.OutsidePort != second.OutsidePort {
		t.Errorf("two mappings of an endpoint: %+v, %+v", first, second)
	}
	table.Relabel(func(inside packet.Addr) uint8 {
		if inside != v6(host) {
			t.Errorf("asked for the way to %s", inside.Netip())
		}
		return 9
	})
	if tr := table.Translation(refs[0]); tr.Hop != 9 || tr.Outside != b.Addresses[0] {
		t.Errorf("relabelled %+v", tr)
	}
	udp := table.Translation(refs[1])
	drain(table, time.Hour)
	if got := table.Owned(isp1, protoUDP, udp.Outside, udp.OutsidePort); got != Resting || table.FindOut(udp.Key) != 0 {
		t.Errorf("after its lifetime: ownership %d, found %d", got, table.FindOut(udp.Key))
	}
}
