package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// errorsV6 are the errors of ICMPv6 that are translated: type, code, and what stands before the quote.
var errorsV6 = []struct {
	kind, code uint8
	number     uint32
}{
	{1, 0, 0}, {1, 1, 0}, {1, 3, 0}, {1, 4, 0}, {1, 5, 0}, {2, 0, 1300}, {3, 0, 0}, {3, 1, 0}, {4, 0, 40}, {4, 1, 6}, {4, 2, 40},
}

// errorAboutV6 makes an ICMPv6 error that quotes a packet.
func (r *rawWorld) errorAboutV6(from, to netip.Addr, kind, code uint8, number uint32, quoted []byte) []byte {
	r.t.Helper()
	h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
	return r.packet(from, to, h, gopacket.Payload(append(word(number), quoted...)))
}

// knownAs makes what one side of the translation knows as the datagram that the other side captured.
func (r *rawWorld) knownAs(src, dst netip.AddrPort, captured *lab.Packet, payload string) []byte {
	r.t.Helper()
	h := ip6(src.Addr(), dst.Addr())
	h.FlowLabel, h.HopLimit = captured.V6.FlowLabel, captured.V6.HopLimit
	return packetV6(r.t, h, nil, udpBetween(src, dst), gopacket.Payload(payload))
}

func be32(b []byte) uint32 { return uint32(be16(b))<<16 | uint32(be16(b[2:])) }

func word(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

// quoteOf is the IP packet of a captured frame.
func quoteOf(p *lab.Packet) []byte { return bytes.Clone(p.Data[14:]) }

// TestRFC4443_ErrorsFromOutside: errors of every kind, from any router, arrive as errors about what the inside sent, and are dropped
// when damaged or about nothing of ours.
func TestRFC4443_ErrorsFromOutside(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	inside, remote := netip.AddrPortFrom(r.family.rawHosts[0], 4000), netip.AddrPortFrom(r.family.rawRemote, 5300)
	outside, sent := r.udp(inside, remote)
	quoted, want := quoteOf(sent), r.knownAs(inside, remote, sent, "hello")
	sources := []netip.Addr{r.family.provider(r.Uplinks[0]), remote.Addr(), netip.MustParseAddr("2001:db8:77::1")}
	for _, from := range sources {
		for _, e := range errorsV6 {
			p := r.in(r.errorAboutV6(from, outside.Addr(), e.kind, e.code, e.number, quoted))
			if p.ICMPv6 == nil || p.Src.Addr() != from || p.Dst.Addr() != inside.Addr() || !bytes.Equal(p.Payload, want) ||
				p.ICMPv6.TypeCode != layers.CreateICMPv6TypeCode(e.kind, e.code) || be32(p.Segment[4:]) != e.number {
				t.Errorf("type %d code %d from %s arrived as %s\n% x, want\n% x", e.kind, e.code, from, p, p.Segment, want)
			}
		}
	}
	damaged := r.errorAboutV6(sources[0], outside.Addr(), 1, 1, 0, quoted)
	damaged[42] ^= 1
	r.dropped("an error with a wrong checksum", damaged)
	stranger := r.knownAs(netip.AddrPortFrom(outside.Addr(), outside.Port()^1), remote, sent, "hello")
	r.dropped("an error about nothing of ours", r.errorAboutV6(sources[0], outside.Addr(), 1, 1, 0, stranger))
	for _, kind := range []uint8{100, 127, 137} { // experimental, reserved; a redirect
		r.dropped(fmt.Sprint("ICMPv6 of type ", kind), r.errorAboutV6(sources[0], outside.Addr(), kind, 0, 0, quoted))
	}
	if p := r.in(r.datagram(remote, outside, "still there")); p.Dst != inside {
		t.Errorf("after the errors: %s", p)
	}
}

// TestRFC4443_ErrorsFromInside: they leave from our outside address, about what the remote sent.
func TestRFC4443_ErrorsFromInside(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	inside, remote := netip.AddrPortFrom(r.family.rawHosts[0], 4000), netip.AddrPortFrom(r.family.rawRemote, 5300)
	outside, _ := r.udp(inside, remote)
	arrived := r.in(r.datagram(remote, outside, "hello"))
	want := r.knownAs(remote, outside, arrived, "hello")
	for _, from := range r.family.rawHosts {
		for _, e := range errorsV6 {
			p := r.out(r.errorAboutV6(from, remote.Addr(), e.kind, e.code, e.number, quoteOf(arrived)))
			if p.ICMPv6 == nil || p.Src.Addr() != outside.Addr() || p.Dst.Addr() != remote.Addr() || !bytes.Equal(p.Payload, want) {
				t.Errorf("type %d code %d left as %s\n% x, want\n% x", e.kind, e.code, p, p.Payload, want)
			}
		}
	}
}

// TestFault35_ForgedTooBig is TestFault35_ForgedFragNeeded for IPv6.
func TestFault35_ForgedTooBig(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	forged, before := 0.0, r.metric(forgedErrors)
	refused := func(what string, sent *lab.Packet, mtu uint32, change func([]byte)) {
		t.Helper()
		forged++
		quoted := quoteOf(sent)
		change(quoted)
		r.dropped(what, r.errorAboutV6(r.family.rawOther, sent.Src.Addr(), 2, 0, mtu, quoted))
	}
	_, datagram := r.udp(netip.AddrPortFrom(r.family.rawHosts[0], 4000), netip.AddrPortFrom(r.family.rawRemote, 5300))
	for _, mtu := range []uint32{0, 68, 1279} { // RFC 8201 §4
		refused(fmt.Sprint("an MTU of ", mtu), datagram, mtu, asItWas)
	}
	c := r.talk(4001, 80).connect()
	segment := c.say(tACK, 101, 901, "question")
	number := func(seq uint32) func([]byte) {
		return func(quoted []byte) { copy(quoted[40+4:], word(seq)) }
	}
	for _, seq := range []uint32{0, 99, 110, 101 + 1<<20, 101 + 1<<31} {
		refused(fmt.Sprint("one about number ", seq), segment, 1400, number(seq))
	}
	p := r.in(r.errorAboutV6(r.family.rawOther, segment.Src.Addr(), 2, 0, 1280, quoteOf(segment)))
	if p.ICMPv6 == nil || p.Dst.Addr() != c.inside.Addr() {
		t.Errorf("a genuine one arrived as %s", p)
	}
	c.expect("established")
	eventually(t, "the drops", func() bool { return r.metric(forgedErrors)-before == forged })
}

// TestIPv6Queries: echo requests of several hosts with the same identifier are told apart, and replies arrive under the one that
// was used inside.
func TestIPv6Queries(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	const id = 7
	echo := func(kind uint8, src, dst netip.Addr, id uint16) []byte {
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
		return r.packet(src, dst, h, gopacket.Payload([]byte{byte(id >> 8), byte(id), 0, 1, 'p', 'i', 'n', 'g'}))
	}
	used := map[uint16]netip.Addr{}
	for _, host := range r.family.rawHosts {
		for _, remote := range []netip.Addr{r.family.rawRemote, r.family.rawOther} {
			p := r.out(echo(layers.ICMPv6TypeEchoRequest, host, remote, id))
			outside := be16(p.Segment[4:])
			if other, ok := used[outside]; ok && other != host {
				t.Errorf("%s and %s both ask under %d", host, other, outside)
			}
			used[outside] = host
			back := r.in(echo(layers.ICMPv6TypeEchoReply, remote, p.Src.Addr(), outside))
			if back.Dst.Addr() != host || be16(back.Segment[4:]) != id {
				t.Errorf("the reply arrived as %s: % x", back, back.Segment)
			}
		}
	}
	if len(used) != len(r.family.rawHosts) {
		t.Errorf("identifiers %v", used)
	}
}

// TestRFC4443_OneHop: the gateway is one hop for the LAN and none for the host; what expires in it is answered by it, once.
func TestRFC4443_OneHop(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	t.Run("host", func(t *testing.T) { testTraceroute(t, w, w.Gateway) })
	t.Run("LAN", func(t *testing.T) { testTraceroute(t, w, w.lan) })
}

var hopV6 = regexp.MustCompile(`(?m)^ *(\d+)[:?]? +([0-9a-f:]+:[0-9a-f:]+) `)

// TestRFC4443_Traceroute is TestRFC1812_Traceroute over IPv6.
func TestRFC4443_Traceroute(t *testing.T) {
	t.Parallel()
	const mtu = 1400
	w := beginV6(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: mtu}, {MTU: mtu}}}, inTurn)
	server := w.family.servers[0]
	isps := []netip.Addr{w.family.provider(w.Uplinks[0]), w.family.provider(w.Uplinks[1])}
	for ns, path := range map[*lab.Namespace][][]netip.Addr{w.lan: {{lab.GatewayLANAddrV6}, isps, {server}}, w.Gateway: {isps, {server}}} {
		for _, args := range [][]string{
			{"traceroute", "-6", "-n", "-q", "1", "-w", "3", "-N", "1"},
			{"traceroute", "-6", "-n", "-q", "1", "-w", "3", "-N", "1", "-I"},
			{"traceroute", "-6", "-n", "-q", "1", "-w", "3", "-N", "1", "-T", "-p", "80"},
			{"tracepath", "-6", "-n"},
		} {
			out, err := ns.Command(labtest.Context(t), args[0], append(args[1:], server.String())...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v (is it installed? run `make peers`): %v\n%s", args, err, out)
			}
			if !isPath(hops(hopV6, string(out)), path) {
				t.Errorf("%s: %v:\n%s", ns.Name(), args, out)
			}
			if args[0] == "tracepath" && !contains(string(out), "pmtu 1400") {
				t.Errorf("%s: %v does not find the path MTU:\n%s", ns.Name(), args, out)
			}
		}
	}
}

// TestRFC4443_Refusals: senders are told when there is no way left, from an address of ours that is nobody's, as much as fits in 1280
// bytes, and nobody is told about an error or to a group.
func TestRFC4443_Refusals(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{}, "")
	inside, remote := netip.AddrPortFrom(r.family.rawHosts[0], 4000), netip.AddrPortFrom(r.family.rawRemote, 5300)
	begun := time.Now()
	labtest.Must(t, r.Uplinks[0].ISP.Sysctl("net/ipv6/conf/all/forwarding", "0"))
	r.ipv6Is("wan1", api.StateDown, begun)
	told := func(what string, b []byte) *lab.Packet {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		p, err := r.eth.AwaitAfter(ctx, func(p *lab.Packet) bool {
			return !p.Outgoing && p.ICMPv6 != nil && p.ICMPv6.TypeCode.Type() < 128 && p.Dst.Addr() == inside.Addr()
		}, func() error { sendRaw(t, r.lan, remote.Addr(), b); return nil })
		if err != nil {
			t.Fatalf("nobody is told about %s: %v", what, err)
		}
		return p
	}
	big := r.datagram(inside, remote, strings.Repeat("x", 1400))
	if p := told("a datagram", big); p.ICMPv6.TypeCode != unreachableV6(layers.ICMPv6CodeNoRouteToDst) || len(p.Segment) != smallestMTU-40 ||
		!bytes.Equal(p.Payload[8:44], big[8:44]) {
		t.Errorf("told by %s: % x", p, p.Segment[:60])
	}
	about := r.errorAboutV6(inside.Addr(), remote.Addr(), 1, 4, 0, r.datagram(remote, inside, "x"))
	p := r.passes(about, r.lan, r.wan, 300*time.Millisecond)
	if p != nil {
		t.Errorf("an error about nothing of ours left as %s", p)
	}
}

// smallestMTU is what every way of IPv6 takes (RFC 8200 §5).
const smallestMTU = 1280

// TestRFC4443_TooBig: the sender is told the uplink's MTU, about the packet as it knows it, in at most 1280 bytes; so are sockets of
// the host and the LAN, also about what a router behind the uplink tells.
func TestRFC4443_TooBig(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: smallMTU}, {}}}, preferFirst) // the TAP takes more
	remote := netip.AddrPortFrom(r.family.rawRemote, 5300)
	r.udp(netip.AddrPortFrom(r.family.rawHosts[0], 4000), remote)
	for _, port := range []uint16{4000, 4001} { // with a session, and as the first packet of one
		b := r.datagram(netip.AddrPortFrom(r.family.rawHosts[0], port), remote, strings.Repeat("x", 1452))
		p, err := r.eth.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
			return p.ICMPv6 != nil && p.Dst.Addr() == r.family.rawHosts[0]
		}, func() error { sendRaw(t, r.lan, remote.Addr(), b); return nil })
		labtest.Must(t, err)
		if p.ICMPv6.TypeCode != layers.CreateICMPv6TypeCode(2, 0) || be32(p.Segment[4:]) != smallMTU ||
			!bytes.Equal(p.Payload[8:44], b[8:44]) || len(p.Payload) != smallestMTU-48 {
			t.Errorf("port %d: told by %s: % x", port, p, p.Segment[:60])
		}
		if from := p.Src.Addr(); !r.Uplinks[0].PrefixV6().Contains(from) || from == r.Uplinks[0].AddrV6() {
			t.Errorf("told by %s", from)
		}
	}
	for name, ns := range map[string]*lab.Namespace{"host": r.Gateway, "lan": r.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp6", netip.AddrPortFrom(r.family.servers[0], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		t.Log(name)
		awaitPathMTU(t, c, smallMTU)
		labtest.Must(t, c.Close())
	}
	backbone, err := r.Uplinks[0].ISP.Handle().LinkByName(lab.DeviceBackbone)
	labtest.Must(t, err)
	labtest.Must(t, r.Uplinks[0].ISP.Handle().LinkSetMTU(backbone, 1300))
	for name, ns := range map[string]*lab.Namespace{"host": r.Gateway, "lan": r.lan} {
		c, err := ns.Dial(labtest.Context(t), "udp6", netip.AddrPortFrom(r.family.servers[1], lab.PortUDPEcho).String())
		labtest.Must(t, err)
		t.Log(name)
		awaitPathMTU(t, c, 1300)
		labtest.Must(t, c.Close())
		_, err = ns.Upload(labtest.Context(t), r.family.servers[1], 1<<20)
		labtest.Must(t, err)
	}
}

// TestIPv6SegmentSize: connections announce, in both directions, what their uplink takes.
func TestIPv6SegmentSize(t *testing.T) {
	t.Parallel()
	r := beginRawV6(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: smallMTU}}}, "")
	c := r.talk(4000, 80)
	expectMSS(t, c.say(tSYN, 100, 0, ""), smallMTU-60)
	expectMSS(t, c.hear(tSYN|tACK, 900, 101, ""), smallMTU-60)
}
