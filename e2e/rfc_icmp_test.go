package e2e

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// errorAbout makes an ICMP error that quotes a packet, and what may follow it.
func (r *rawWorld) errorAbout(from, to netip.Addr, kind, code uint8, quoted []byte, more ...byte) []byte {
	r.t.Helper()
	h := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code)}
	if len(more) > 0 {
		h.Id = uint16(len(quoted) / 4) // RFC 4884: the length of the quote
	}
	if kind == layers.ICMPv4TypeDestinationUnreachable && code == layers.ICMPv4CodeFragmentationNeeded {
		h.Seq = 1400 // the MTU
	}
	return r.packet(from, to, h, gopacket.Payload(append(bytes.Clone(quoted), more...)))
}

// seenFrom makes what one side of the translation knows as the packet that the other side captured.
func (r *rawWorld) seenFrom(src, dst netip.AddrPort, captured *lab.Packet, payload string) []byte {
	r.t.Helper()
	h := ip4(src.Addr(), dst.Addr())
	h.Id, h.TTL = captured.IP.Id, captured.IP.TTL
	return frame(r.t, gopacket.Payload(nil), h,
		&layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(payload))
}

// errors of the types that are translated.
var translatedErrors = [][2]uint8{{3, 0}, {3, 1}, {3, 2}, {3, 3}, {3, 4}, {3, 5}, {3, 9}, {3, 10}, {3, 13}, {11, 0}, {11, 1}, {12, 0}, {12, 1}}

// TestRFC5508_REQ4_ErrorsFromOutside: errors of every kind, from any router, arrive as errors about what the inside sent, end
// nothing (RFC 4787 REQ-12, RFC 5382 REQ-9 and REQ-10), and are dropped when damaged, of other kinds, or about nothing of ours.
func TestRFC5508_REQ4_ErrorsFromOutside(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	inside, remote := netip.AddrPortFrom(rawHosts[0], 4000), netip.AddrPortFrom(rawRemote, 5300)
	outside, sent := r.udp(inside, remote)
	quoted, want := bytes.Clone(sent.Data[14:]), r.seenFrom(inside, remote, sent, "hello")
	sources := []netip.Addr{r.Uplinks[0].NextHop(), remote.Addr(), netip.MustParseAddr("198.51.100.77")}
	for _, from := range sources {
		for _, kind := range translatedErrors {
			p := r.in(r.errorAbout(from, outside.Addr(), kind[0], kind[1], quoted))
			if p.ICMP == nil || p.Src.Addr() != from || p.Dst.Addr() != inside.Addr() || !bytes.Equal(p.ICMP.Payload, want) ||
				p.ICMP.TypeCode != layers.CreateICMPv4TypeCode(kind[0], kind[1]) {
				t.Errorf("type %d code %d from %s arrived as %s\n% x, want\n% x", kind[0], kind[1], from, p, p.Payload, want)
			}
		}
	}
	t.Run("RFC 4884 and options", func(t *testing.T) { testUnusualQuotes(t, r, inside, outside, quoted) })
	damaged := r.errorAbout(sources[0], outside.Addr(), 3, 1, quoted)
	damaged[22] ^= 1
	r.dropped("an error with a wrong ICMP checksum (REQ-3)", damaged)
	badQuote := bytes.Clone(quoted)
	badQuote[8]++
	r.dropped("an error whose quote has a wrong header checksum (REQ-3a)", r.errorAbout(sources[0], outside.Addr(), 3, 1, badQuote))
	r.dropped("source quench (RFC 6633)", r.errorAbout(sources[0], outside.Addr(), 4, 0, quoted))
	r.dropped("a redirect", r.errorAbout(sources[0], outside.Addr(), 5, 1, quoted))
	for _, kind := range []uint8{40, 253} {
		r.dropped("ICMP of an unknown type (REQ-11)", r.errorAbout(sources[0], outside.Addr(), kind, 0, quoted))
	}
	stranger := r.seenFrom(netip.AddrPortFrom(outside.Addr(), outside.Port()^1), remote, sent, "hello")
	r.dropped("an error about nothing of ours", r.errorAbout(sources[0], outside.Addr(), 3, 1, stranger))
	if p := r.in(r.datagram(remote, outside, "still there")); p.Dst != inside {
		t.Errorf("after the errors: %s", p)
	}
}

// testUnusualQuotes: options in the quoted header, a transport checksum that is wrong, a quote of eight bytes, and
// extensions behind the quote.
func testUnusualQuotes(t *testing.T, r *rawWorld, inside, outside netip.AddrPort, quoted []byte) {
	router := r.Uplinks[0].NextHop()
	link := make([]byte, 14)
	optioned := withOptions(append(link, quoted...), []byte{148, 4, 0, 0})[14:]
	p := r.in(r.errorAbout(router, outside.Addr(), 11, 0, optioned))
	if got := p.ICMP.Payload; !bytes.Equal(got[12:16], inside.Addr().AsSlice()) || be16(got[24:]) != inside.Port() || !bytes.Equal(got[20:24], []byte{148, 4, 0, 0}) {
		t.Errorf("options in the quote (REQ-3b): % x", got)
	}
	wrong := bytes.Clone(quoted)
	wrong[26] ^= 0xff
	if p := r.in(r.errorAbout(router, outside.Addr(), 11, 0, wrong)); be16(p.ICMP.Payload[20:]) != inside.Port() {
		t.Errorf("a wrong quoted transport checksum (REQ-3c): % x", p.ICMP.Payload)
	}
	if p := r.in(r.errorAbout(router, outside.Addr(), 3, 3, quoted[:28])); len(p.ICMP.Payload) != 28 || be16(p.ICMP.Payload[20:]) != inside.Port() {
		t.Errorf("a short quote: % x", p.ICMP.Payload)
	}
	mpls := []byte{0x20, 0, 0xdc, 0x3a, 0, 8, 1, 1, 0, 0x10, 0x21, 1}
	padded := append(bytes.Clone(quoted), make([]byte, 128-len(quoted))...)
	p = r.in(r.errorAbout(router, outside.Addr(), 11, 0, padded, mpls...))
	if got := p.ICMP.Payload; len(got) != 140 || !bytes.Equal(got[128:], mpls) || !bytes.Equal(got[len(quoted):128], padded[len(quoted):]) ||
		be16(got[20:]) != inside.Port() || p.ICMP.Id != 32 {
		t.Errorf("extensions (REQ-3d, RFC 4884): length %d, % x", p.ICMP.Id, got)
	}
}

// TestRFC5382_REQ10_ErrorsEndNoConnection: hard errors about a connection arrive (REQ-9), and it goes on.
func TestRFC5382_REQ10_ErrorsEndNoConnection(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	c := r.talk(4000, 80).connect()
	sent := c.say(tACK, 101, 901, "question")
	for _, kind := range translatedErrors {
		p := r.in(r.errorAbout(r.Uplinks[0].NextHop(), c.outside.Addr(), kind[0], kind[1], sent.Data[14:]))
		if p.ICMP == nil || p.Dst.Addr() != c.inside.Addr() || be16(p.ICMP.Payload[20:]) != c.inside.Port() {
			t.Errorf("type %d code %d arrived as %s", kind[0], kind[1], p)
		}
		c.expect("established")
	}
	c.hear(tACK, 901, 109, "answer")
	c.say(tACK, 109, 907, "")
}

// TestRFC5508_REQ5_ErrorsFromInside: they leave from our outside address, also those of a router behind the one that is spoken of,
// about what the remote sent.
func TestRFC5508_REQ5_ErrorsFromInside(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	inside, remote := netip.AddrPortFrom(rawHosts[0], 4000), netip.AddrPortFrom(rawRemote, 5300)
	outside, _ := r.udp(inside, remote)
	arrived := r.in(r.datagram(remote, outside, "hello"))
	want := r.seenFrom(remote, outside, arrived, "hello")
	for _, from := range rawHosts {
		for _, kind := range translatedErrors {
			p := r.out(r.errorAbout(from, remote.Addr(), kind[0], kind[1], arrived.Data[14:]))
			if p.ICMP == nil || p.Src.Addr() != outside.Addr() || p.Dst.Addr() != remote.Addr() || !bytes.Equal(p.ICMP.Payload, want) ||
				p.ICMP.TypeCode != layers.CreateICMPv4TypeCode(kind[0], kind[1]) {
				t.Errorf("type %d code %d left as %s\n% x, want\n% x", kind[0], kind[1], p, p.Payload, want)
			}
		}
	}
}

// query makes an ICMP query or reply.
func (r *rawWorld) query(src, dst netip.Addr, kind uint8, id uint16) []byte {
	r.t.Helper()
	return r.packet(src, dst, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: id, Seq: 1}, gopacket.Payload(make([]byte, 12)))
}

// TestRFC5508_REQ1_Queries: two hosts that use the same identifier get their own replies, of echo and timestamp, from each remote;
// the outside identifier does not depend on the remote.
func TestRFC5508_REQ1_Queries(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	const id = 7
	used := map[uint16]netip.Addr{}
	for _, host := range rawHosts {
		var first uint16
		for _, remote := range []netip.Addr{rawRemote, rawOther} {
			for _, kind := range []uint8{layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeTimestampRequest} {
				p := r.out(r.query(host, remote, kind, id))
				if first == 0 {
					first = p.ICMP.Id
				}
				if other, ok := used[p.ICMP.Id]; ok && other != host || p.ICMP.Id != first {
					t.Errorf("%s asks %s under the identifier %d, before under %d, which %s has", host, remote, p.ICMP.Id, first, other)
				}
				used[p.ICMP.Id] = host
				reply := map[uint8]uint8{layers.ICMPv4TypeEchoRequest: layers.ICMPv4TypeEchoReply,
					layers.ICMPv4TypeTimestampRequest: layers.ICMPv4TypeTimestampReply}[kind]
				back := r.in(r.query(remote, p.Src.Addr(), reply, p.ICMP.Id))
				if back.Dst.Addr() != host || back.ICMP.Id != id {
					t.Errorf("the reply arrived as %s, identifier %d", back, back.ICMP.Id)
				}
			}
		}
	}
}

// TestRFC5508_REQ6_ErrorsAboutQueries neither keep the session of a query nor end it.
func TestRFC5508_REQ6_ErrorsAboutQueries(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Second
	r := beginRaw(t, lab.Options{}, "nat: {timeouts: {icmp: 2s}}\n")
	const id = 77
	sent := r.out(r.query(rawHosts[0], rawRemote, layers.ICMPv4TypeEchoRequest, id))
	begun := time.Now()
	p := r.in(r.errorAbout(r.Uplinks[0].NextHop(), sent.Src.Addr(), 11, 0, sent.Data[14:]))
	if p.Dst.Addr() != rawHosts[0] || be16(p.ICMP.Payload[24:]) != id {
		t.Fatalf("the error arrived as %s", p)
	}
	eventually(t, "the end of the session", func() bool {
		sendRaw(t, r.Internet, sent.Src.Addr(), r.errorAbout(rawRemote, sent.Src.Addr(), 3, 1, sent.Data[14:]))
		_, ok := r.session("icmp", id)
		return !ok
	})
	if took := time.Since(begun); took < life-100*time.Millisecond {
		t.Errorf("the session ended after %s", took)
	}
}

// TestRFC7857_S7_1_RefusedPackets: a flood to a port that the inside has closed does not keep its session, nor do the errors that
// answer it.
func TestRFC7857_S7_1_RefusedPackets(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Second
	w := begin(t, lab.Options{}, inTurn+"nat: {timeouts: {udp: 2s}}\n")
	remote := netip.AddrPortFrom(lab.ServerAddrs[0], 9000)
	server, err := listenUDP(w.Internet, remote)
	labtest.Must(t, err)
	defer server.Close()
	inside, outside := openDatagrams(t, w, server)
	port := local(inside).Port()
	labtest.Must(t, inside.Close())
	begun := time.Now()
	eventually(t, "the end of the session", func() bool {
		_, err := server.WriteTo([]byte("anybody there?"), net.UDPAddrFromAddrPort(outside))
		labtest.Must(t, err)
		_, ok := w.session("udp", port)
		return !ok
	})
	if took := time.Since(begun); took < life-500*time.Millisecond {
		t.Errorf("the session ended after %s", took)
	}
}

// TestRFC1812_OneHop: the gateway is one hop for the LAN and none for the host; what expires in it is answered by it, to either
// side, once.
func TestRFC1812_OneHop(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	t.Run("host", func(t *testing.T) { testTraceroute(t, w, w.Gateway) })
	t.Run("LAN", func(t *testing.T) { testTraceroute(t, w, w.lan) })
	r := rawEnds(t, w)
	one := func(b []byte) []byte { // the last hop is the gateway
		b[8] = 2
		whole := append(make([]byte, 14), b...)
		fixHeader(whole)
		return whole[14:]
	}
	inside, remote := netip.AddrPortFrom(rawHosts[0], 4000), netip.AddrPortFrom(rawRemote, 5300)
	second := watchUplink(t, w.Gateway, w.Uplinks[1])
	first := r.wan
	var outside netip.AddrPort
	for _, c := range []*lab.Capture{first, second} { // the uplinks take turns
		r.wan = c
		if p := r.passes(r.datagram(inside, remote, "hello"), r.lan, c, time.Second); p != nil {
			outside = p.Src
			break
		}
	}
	if !outside.IsValid() {
		t.Fatal("a datagram did not leave")
	}
	p, err := r.wan.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.Outgoing && p.ICMP != nil && p.Dst.Addr() == remote.Addr() },
		func() error {
			sendRaw(t, r.Internet, outside.Addr(), one(r.datagram(remote, outside, "too far")))
			return nil
		})
	labtest.Must(t, err)
	if p.ICMP.TypeCode != layers.CreateICMPv4TypeCode(11, 0) || p.Src != netip.AddrPortFrom(outside.Addr(), 0) || be16(p.ICMP.Payload[22:]) != outside.Port() {
		t.Errorf("what expires on the way in is answered by %s: % x", p, p.ICMP.Payload)
	}
}
