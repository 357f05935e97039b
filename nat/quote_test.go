package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

var router = packet.IPv4(0xc6120101) // sends errors

// report is an ICMP error with the first n bytes of a packet, and whatever follows them.
func report(t interface{ Fatal(...any) }, from, to packet.Addr, typ uint8, quoted, extension []byte) ([]byte, *packet.Packet) {
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 1)}
	if extension != nil {
		icmp.Id = uint16(len(quoted) / 4) // RFC 4884: the length, in the low byte of the second word's first half
	}
	ip := &layers.IPv4{Version: 4, TTL: 50, Protocol: layers.IPProtocolICMPv4, SrcIP: ipOf(from), DstIP: ipOf(to)}
	eth := gopacket.Payload([]byte{0: 2, 6: 2, 12: 8, 13: 0})
	body := append(bytes.Clone(quoted), extension...)
	frame := append(bytes.Clone(eth), serialize(t, ip, icmp, gopacket.Payload(body))...)
	var p packet.Packet
	p.Decode(frame)
	return frame, &p
}

var quoteTr = &Translation{
	Key: key(protoUDP, 4000, web, 53), Outside: out1, OutsidePort: 777, Uplink: isp1, Generation: 1, State: Active,
}

// sent is the packet of tr as the outside saw it leave; received is its answer as the inside saw it.
func sent(tr *Translation) flow {
	f := flow{proto: tr.Proto, src: tr.Outside, srcPort: tr.OutsidePort, dst: tr.Remote, dstPort: tr.RemotePort, icmpType: 8}
	return f
}

func received(tr *Translation) flow {
	f := flow{proto: tr.Proto, src: tr.Remote, srcPort: tr.RemotePort, dst: tr.Inside, dstPort: tr.InsidePort}
	if tr.Proto == protoICMP {
		f.srcPort = tr.InsidePort
	}
	return f
}

// Errors of any size of quote, in both directions, become exactly the error an independent encoder builds over the
// packet as the other side knows it.
func TestRFC5508_REQ4_REQ5_ErrorsAreTranslated(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tr := drawTranslation(rt)
		tr.Proto = rapid.SampledFrom([]uint8{protoTCP, protoUDP, protoICMP, 47, packet.ProtoUDPLite}).Draw(rt, "proto")
		if tr.Remote = web; !HasPorts(tr.Proto) {
			tr.InsidePort, tr.OutsidePort = 0, 0
		} else if tr.Proto != protoICMP {
			tr.RemotePort = rapid.Uint16().Draw(rt, "remote port")
		}
		typ := rapid.SampledFrom([]uint8{3, 11, 12}).Draw(rt, "type")
		options := rapid.IntRange(0, 10).Draw(rt, "options")
		payload := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(rt, "payload")
		cut := rapid.IntRange(0, 60).Draw(rt, "cut")
		quoteOf := func(f flow) []byte {
			f.options, f.payload = options, payload
			b := f.packet(rt)
			n := max(min(20+4*options+8, len(b)), len(b)-cut)
			if n == 20+4*options+17 {
				n-- // half of a TCP checksum cannot be set right, and nobody could check it
			}
			return b[:n]
		}
		if rapid.Bool().Draw(rt, "in") {
			frame, p := report(rt, router, tr.Outside, typ, quoteOf(sent(tr)), nil)
			if k, ok := QuotedKeyIn(frame, p, tr.Uplink); !ok || k != tr.InKey() {
				rt.Fatalf("key %+v, %v", k, ok)
			}
			if !RewriteErrorIn(frame, p, tr) {
				rt.Fatal("refused")
			}
			inside := sent(tr)
			inside.src, inside.srcPort = tr.Inside, tr.InsidePort
			compareQuotes(rt, frame, tr.Proto, options, func() []byte {
				want, _ := report(rt, router, tr.Inside, typ, quoteOf(inside), nil)
				return want
			}())
			return
		}
		frame, p := report(rt, plus(host, 5), tr.Remote, typ, quoteOf(received(tr)), nil)
		if k, ok := QuotedKeyOut(frame, p); !ok || k != tr.Key {
			rt.Fatalf("key %+v, %v", k, ok)
		}
		if !RewriteErrorOut(frame, p, tr) {
			rt.Fatal("refused")
		}
		outside := received(tr)
		outside.dst, outside.dstPort = tr.Outside, tr.OutsidePort
		if tr.Proto == protoICMP {
			outside.srcPort = tr.OutsidePort
		}
		want, _ := report(rt, tr.Outside, tr.Remote, typ, quoteOf(outside), nil)
		compareQuotes(rt, frame, tr.Proto, options, want)
	})
}

func compareQuotes(rt *rapid.T, frame []byte, proto uint8, options int, want []byte) {
	if !bytes.Equal(frame, want) {
		rt.Fatalf("protocol %d, %d option words\n% x\n% x", proto, options, frame, want)
	}
}

// RFC 5508 REQ-3: what is damaged or not ours to translate is left alone.
func TestRFC5508_REQ3_BadErrorsAreRefused(t *testing.T) {
	quoted := sent(quoteTr).packet(t)
	fixICMP := func(frame []byte) {
		frame[36], frame[37] = 0, 0
		binary.BigEndian.PutUint16(frame[36:], ^packet.Fold(packet.Sum(0, frame[34:])))
	}
	for name, c := range map[string]struct {
		spoil func(frame []byte)
		to    packet.Addr
		ok    bool
	}{
		"good":                     {func([]byte) {}, out1, true},
		"quoted transport damaged": {func(f []byte) { f[68] ^= 1; fixICMP(f) }, out1, true},
		"ICMP checksum":            {func(f []byte) { f[36] ^= 1 }, out1, false},
		"quoted header checksum":   {func(f []byte) { f[52] ^= 1; fixICMP(f) }, out1, false},
		"quoted version":           {func(f []byte) { f[42] = 0x65; fixICMP(f) }, out1, false},
		"quoted header too long":   {func(f []byte) { f[42] = 0x4f; fixICMP(f) }, out1, false},
		"quoted header too short":  {func(f []byte) { f[42] = 0x44; fixICMP(f) }, out1, false},
		"sent to somebody else":    {func([]byte) {}, out2, false},
	} {
		t.Run(name, func(t *testing.T) {
			frame, p := report(t, router, c.to, 3, quoted, nil)
			c.spoil(frame)
			before := bytes.Clone(frame)
			if _, ok := QuotedKeyIn(frame, p, isp1); ok != c.ok {
				t.Errorf("key found: %v", ok)
			}
			if ok := RewriteErrorIn(frame, p, quoteTr); ok != c.ok || !ok && !bytes.Equal(before, frame) {
				t.Errorf("rewritten: %v", ok)
			}
		})
	}
}

func TestQuotesWithoutOurHeadersAreRefused(t *testing.T) {
	later := sent(quoteTr)
	later.mutate = func(ip *layers.IPv4) { ip.FragOffset = 3 }
	igmp := sent(quoteTr)
	igmp.proto, igmp.payload = packet.ProtoIGMP, make([]byte, 20)
	redirect := sent(quoteTr)
	redirect.proto, redirect.icmpType = protoICMP, 5
	reply := sent(quoteTr)
	reply.proto, reply.icmpType = protoICMP, 0
	for name, quoted := range map[string][]byte{
		"later fragment": later.packet(t), "IGMP": igmp.packet(t), "quoted redirect": redirect.packet(t),
		"quoted reply": reply.packet(t), "cut in the ports": sent(quoteTr).packet(t)[:27], "nothing": {},
	} {
		frame, p := report(t, router, out1, 3, quoted, nil)
		if k, ok := QuotedKeyIn(frame, p, isp1); ok {
			t.Errorf("%s: key %+v", name, k)
		}
	}
	frame, p := sent(quoteTr).frame(t)
	if _, ok := QuotedKeyIn(frame, p, isp1); ok {
		t.Error("a packet that is no error has a quoted key")
	}
	echo := received(quoteTr)
	echo.proto, echo.icmpType = protoICMP, 8
	frame, p = report(t, host, web, 3, echo.packet(t), nil)
	if _, ok := QuotedKeyOut(frame, p); ok {
		t.Error("an error about a query from outside has an inside key")
	}
}

// An error is only rewritten for the session it quotes.
func TestErrorsOfOtherSessionsAreRefused(t *testing.T) {
	other := *quoteTr
	other.OutsidePort, other.InsidePort = 1, 1
	frame, p := report(t, router, out1, 3, sent(quoteTr).packet(t), nil)
	if RewriteErrorIn(frame, p, &other) {
		t.Error("inbound")
	}
	frame, p = report(t, host, web, 3, received(quoteTr).packet(t), nil)
	if RewriteErrorOut(frame, p, &other) {
		t.Error("outbound")
	}
}

// RFC 4884: extensions after the quoted datagram stay as they are, and no quoted checksum is looked for in them.
func TestRFC5508_REQ3d_ExtensionsAreLeftAlone(t *testing.T) {
	mpls := []byte{0x20, 0, 0xdc, 0x3a, 0, 8, 1, 1, 0, 0x10, 0x21, 1}
	f := sent(quoteTr)
	f.payload = make([]byte, 100)
	frame, p := report(t, router, out1, 11, f.packet(t), mpls)
	if !RewriteErrorIn(frame, p, quoteTr) {
		t.Fatal("refused")
	}
	f.src, f.srcPort = host, 4000
	if want, _ := report(t, router, host, 11, f.packet(t), mpls); !bytes.Equal(frame, want) {
		t.Errorf("\n% x\n% x", frame, want)
	}
}

// FuzzQuote: no error, however broken, is read or written outside its bytes, and a rewritten one is intact.
func FuzzQuote(f *testing.F) {
	for _, proto := range []uint8{protoTCP, protoUDP, protoICMP, 47, packet.ProtoUDPLite} {
		tr := *quoteTr
		tr.Proto = proto
		in, _ := report(f, router, out1, 3, sent(&tr).packet(f), nil)
		out, _ := report(f, host, web, 3, received(&tr).packet(f), nil)
		f.Add(in, true)
		f.Add(out, true)
	}
	for _, proto := range []uint8{protoTCP, protoUDP, protoICMPv6, 47} {
		quoted := flowV6{proto: proto, src: v6(out1), dst: v6(web), srcPort: 777, dstPort: 53, icmpType: 128, first: 60,
			chain: []byte{proto, 0, 1, 4, 0, 0, 0, 0}, payload: []byte("payload")}.packet(f)
		in, _ := reportV6(f, v6(router), v6(out1), 2, 1280, quoted)
		f.Add(in, true)
	}
	table := newTable(f, nil)
	f.Fuzz(func(t *testing.T, frame []byte, repair bool) {
		frame = bytes.Clone(frame)
		frame = frame[:len(frame):len(frame)]
		var p packet.Packet
		if p.Decode(frame); p.Kind == packet.ICMPError && repair {
			repairSums(frame, &p)
		}
		if _, ok := parseQuote(frame, &p); !ok && table.Plausible(frame, &p, 0, &Translation{}) {
			t.Fatal("a damaged error is plausible")
		}
		intact, inside, outside := p.Kind == packet.ICMPError && !p.IPv6 && intactIP(frame, &p), host, out1
		if p.IPv6 {
			inside, outside = v6(host), v6(out1)
		}
		if k, ok := QuotedKeyIn(frame, &p, isp1); ok {
			tr := Translation{Key: Key{Inside: inside, InsidePort: k.OutsidePort / 2, Remote: k.Remote, Proto: k.Proto}, Outside: k.Outside, OutsidePort: k.OutsidePort}
			checkError(t, frame, p, intact, RewriteErrorIn(bytes.Clone(frame), &p, &tr), RewriteErrorIn, &tr)
		} else if k, ok := QuotedKeyOut(frame, &p); ok {
			tr := Translation{Key: k, Outside: outside, OutsidePort: k.InsidePort / 2}
			checkError(t, frame, p, intact, RewriteErrorOut(bytes.Clone(frame), &p, &tr), RewriteErrorOut, &tr)
		}
	})
}

// repairSums lets the fuzzer past the checksums.
func repairSums(frame []byte, p *packet.Packet) {
	fill := func(at, from, to int) {
		binary.BigEndian.PutUint16(frame[at:], 0)
		binary.BigEndian.PutUint16(frame[at:], ^packet.Fold(packet.Sum(0, frame[from:to])))
	}
	if p.IPv6 {
		binary.BigEndian.PutUint16(frame[p.L4+2:], 0)
		binary.BigEndian.PutUint16(frame[p.L4+2:], ^messageSum(frame, p))
		return
	}
	l3, end := int(p.L4)+8, int(p.L3)+int(p.Len)
	if end >= l3+20 {
		if ihl := int(frame[l3]&15) * 4; ihl >= 20 && l3+ihl <= end {
			fill(l3+10, l3, l3+ihl)
		}
	}
	fill(int(p.L4)+2, int(p.L4), end)
}

// checkError rewrites once more on a frame of its own and looks at every checksum of the result.
func checkError(t *testing.T, frame []byte, p packet.Packet, intact, ok bool, again func([]byte, *packet.Packet, *Translation) bool, tr *Translation) {
	p.Decode(frame)
	if !ok || !again(frame, &p, tr) {
		t.Fatal("a quote that has a key is not rewritten for it")
	}
	if intact && !intactIP(frame, &p) {
		t.Fatal("outer header checksum")
	}
	if messageSum(frame, &p) != 0xffff {
		t.Fatal("ICMP checksum")
	}
	if _, ok := parseQuote(frame, &p); !ok {
		t.Fatal("the rewritten quote is broken")
	}
}
