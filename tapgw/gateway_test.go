package tapgw

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	syn    = packet.SYN
	ack    = packet.ACK
	synAck = packet.SYN | packet.ACK
)

// open opens a session by its first frame and returns its outside port on the uplink it went to.
func (w *world) open(first []byte) (port uint16, uplink uint8) {
	w.t.Helper()
	b := clone(first)
	res := w.out(b)
	return outsidePort(w.sent(res, b, res.Uplink)), res.Uplink
}

// outboundCase is a frame from the TAP and what becomes of it.
type outboundCase struct {
	name    string
	prepare func(*world)
	frame   []byte
	verdict Verdict
	why     Reason
	code    int // of the ICMP error the sender gets, −1 for none, −2 for a TCP reset
}

func (c *outboundCase) run(t *testing.T) {
	w := newWorld(t)
	if c.prepare != nil {
		c.prepare(w)
		w.publish()
	}
	res := w.out(clone(c.frame))
	w.expect(res, c.verdict, c.why)
	if n := w.drops(c.why); c.why != NoReason && n != 1 {
		t.Errorf("counted %d times", n)
	}
	checkAnswer(t, res.Reply, c.code)
}

// TestVerdictsOutbound: what a frame from the TAP becomes by its content, and what its sender is told.
func TestVerdictsOutbound(t *testing.T) {
	udp := udpFrame(t, inside, 4000, server, 53, "query")
	for _, c := range []outboundCase{
		{"udp", nil, udp, Send, NoReason, -1},
		{"tcp", nil, tcpFrame(t, inside, 4000, server, 80, syn, ""), Send, NoReason, -1},
		{"tcp asking for ECN", nil, tcpFrame(t, inside, 4000, server, 80, syn|0xc0, ""), Send, NoReason, -1},
		{"echo", nil, echoFrame(t, inside, server, packet.ICMPEcho, 7, "x"), Send, NoReason, -1},
		{"timestamp", nil, echoFrame(t, inside, server, packet.ICMPTimestamp, 7, "123456789012"), Send, NoReason, -1},
		{"nothing", nil, nil, Drop, BadPacket, -1},
		{"virtio header alone", nil, make([]byte, packet.VnetLen), Drop, BadPacket, -1},
		{"cut short", nil, udp[:50], Drop, BadPacket, -1},
		{"IPv6", nil, typed(udp, 0x86dd), Drop, NotIPv4, -1},
		{"VLAN", nil, typed(udp, 0x8100), Drop, NotIPv4, -1},
		{"broken ARP", nil, typed(udp, 0x0806), Drop, BadPacket, -1},
		{"GRE", nil, build(t, ip(inside, server, layers.IPProtocolGRE), gopacket.Payload("x")), Send, NoReason, -1},
		{"IGMP", nil, build(t, ip(inside, server, layers.IPProtocolIGMP), gopacket.Payload("x")), Drop, UnknownProtocol, -1},
		{"OSPF to all routers", nil, build(t, ip(inside, packet.IPv4(0xe0000005), 89), gopacket.Payload("x")), Drop, BadAddress, -1},
		{"unknown, broadcast", nil, build(t, ip(inside, packet.IPv4(0xffffffff), 253), gopacket.Payload("x")), Drop, BadAddress, -1},
		{"short UDP-Lite", nil, build(t, ip(inside, server, packet.ProtoUDPLite), gopacket.Payload("x")), Drop, BadPacket, -1},
		{"ICMP of another type", nil, echoFrame(t, inside, server, 10, 0, ""), Drop, UnknownProtocol, -1},
		{"to a group", nil, udpFrame(t, inside, 5353, packet.IPv4(0xe00000fb), 5353, "x"), Drop, BadAddress, -1},
		{"broadcast", nil, udpFrame(t, inside, 68, packet.IPv4(0xffffffff), 67, "x"), Drop, BadAddress, -1},
		{"to loopback", nil, udpFrame(t, inside, 1, packet.IPv4(0x7f000001), 2, "x"), Drop, BadAddress, -1},
		{"link-local", nil, udpFrame(t, packet.IPv4(0xa9fe0001), 1, server, 2, "x"), Drop, BadAddress, -1},
		{"unspecified", nil, udpFrame(t, packet.IPv4(0), 68, server, 67, "x"), Drop, BadAddress, -1},
		{"segment without session", nil, tcpFrame(t, inside, 4000, server, 80, ack, "data"), Drop, NotSYN, -2},
		{"SYN-ACK without session", nil, tcpFrame(t, inside, 4000, server, 80, synAck, ""), Drop, NotSYN, -2},
		{"reset without session", nil, tcpFrame(t, inside, 4000, server, 80, packet.RST, ""), Drop, NotSYN, -1},
		{"echo reply", nil, echoFrame(t, inside, server, packet.ICMPEchoReply, 7, "x"), Drop, NoSession, -1},
	} {
		t.Run(c.name, c.run)
	}
}

// TestVerdictsOfUplinks: what a frame from the TAP becomes by the uplinks there are.
func TestVerdictsOfUplinks(t *testing.T) {
	udp := udpFrame(t, inside, 4000, server, 53, "query")
	jumbo := udpFrame(t, inside, 4000, server, 53, big)
	noMAC := func(w *world) { w.ups[0].GatewayMAC = [6]byte{}; w.ups[1].ID = 0 }
	opened := func(then func(*world)) func(*world) {
		return func(w *world) { w.open(udp); then(w) }
	}
	for _, c := range []outboundCase{
		{"no uplink", func(w *world) { w.ups[0].State, w.ups[1].State = uplinks.Down, uplinks.Down }, udp, Drop, NoUplink, layers.ICMPv4CodeNet},
		{"too big", nil, uncut(clone(jumbo)), Drop, TooBig, layers.ICMPv4CodeFragmentationNeeded},
		{"super-packet of datagrams that fit", nil, datagrams(jumbo, 1472), Send, NoReason, -1},
		{"super-packet of datagrams too big", nil, datagrams(jumbo, 1473), Drop, TooBig, layers.ICMPv4CodeFragmentationNeeded},
		{"own, too big", nil, uncut(udpFrame(t, wan1, 4000, server, 53, big)), Drop, TooBig, layers.ICMPv4CodeFragmentationNeeded},
		{"gateway unresolved", opened(noMAC), udp, Drop, NotReady, -1},
		{"own, gateway unresolved", noMAC, udpFrame(t, wan1, 4000, server, 53, "x"), Drop, NotReady, -1},
		{"error, gateway unresolved", opened(noMAC), errorFrame(t, inside, server, udpFrame(t, server, 53, inside, 4000, "x")), Drop, NotReady, -1},
		{"error about nothing", nil, errorFrame(t, inside, server, build(t, ip(server, inside, protoUDP))), Drop, BadICMP, -1},
		{"error without session", nil, errorFrame(t, inside, server, udpFrame(t, server, 53, inside, 4000, "x")), Drop, NoSession, -1},
		{"error of a lost address", opened(func(w *world) { w.ups[0].Generation++ }),
			errorFrame(t, inside, server, udpFrame(t, server, 53, inside, 4000, "x")), Drop, StaleSession, -1},
		{"own error", nil, errorFrame(t, wan2, server, udpFrame(t, server, 53, wan2, 4000, "x")), Send, NoReason, -1},
		{"own GRE", nil, build(t, ip(wan2, server, layers.IPProtocolGRE), gopacket.Payload("x")), Send, NoReason, -1},
	} {
		t.Run(c.name, c.run)
	}
}

// checkAnswer fails unless b is an ICMP error from the gateway with a code, a reset (−2) or nothing (−1).
func checkAnswer(t *testing.T, b []byte, code int) {
	t.Helper()
	if code == -1 {
		if b != nil {
			t.Errorf("the sender gets % x", b)
		}
		return
	}
	if b == nil {
		t.Fatal("the sender is told nothing")
	}
	s := look(t, b)
	switch {
	case code == -2:
		if s.tcp == nil || !s.tcp.RST {
			t.Errorf("answer %v, want a reset", s.ip)
		}
	case s.icmp == nil || int(s.icmp.TypeCode.Code()) != code || s.ip.SrcIP.String() != gatewayIP.String():
		t.Errorf("answer %v, want ICMP code %d", s, code)
	}
}

// datagrams makes a UDP frame a super-packet of datagrams of that size.
func datagrams(b []byte, size uint16) []byte {
	b = partial(clone(b))
	b[1] = packet.GSOUDPL4
	packet.VnetHeader(b).SetGSOSize(size)
	return b
}

// typed is a frame with another ethertype.
func typed(b []byte, ethertype uint16) []byte {
	b = clone(b)
	b[packet.VnetLen+12], b[packet.VnetLen+13] = byte(ethertype>>8), byte(ethertype)
	return b
}

// TestNoRoom: a full table, and an uplink without a port, refuse with the ICMP code that RFC 5508 REQ-8 asks for. Ports that
// run out on one uplink send new endpoints to the next.
func TestNoRoom(t *testing.T) {
	for why, change := range map[Reason]func(*nat.Config){
		TableFull: func(c *nat.Config) { c.MaxSessions = 2 },
		NoPort:    func(c *nat.Config) { c.Ports = []nat.PortRange{{First: 5000, Last: 5000}} },
	} {
		w := newWorld(t, change)
		_, first := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
		_, second := w.open(udpFrame(t, inside, 4001, server, 53, "x"))
		if want := why == NoPort; want != (first != second) {
			t.Errorf("%s: uplinks %d and %d", why, first, second)
		}
		res := w.out(udpFrame(t, inside, 4002, server, 53, "x"))
		w.expect(res, Drop, why)
		checkAnswer(t, res.Reply, layers.ICMPv4CodeCommAdminProhibited)
	}
}

// inboundCase is a frame received by uplink 1 and what becomes of it, with a UDP session, a TCP one and an echo one open.
type inboundCase struct {
	name    string
	prepare func(*world)
	frame   func(ports) []byte
	verdict Verdict
	why     Reason
}

// ports are those of the sessions, outside.
type ports struct{ udp, tcp, echo uint16 }

func (c *inboundCase) run(t *testing.T) {
	w := newWorld(t)
	var p ports
	p.udp, _ = w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	p.tcp, _ = w.open(tcpFrame(t, inside, 4000, server, 80, syn, ""))
	p.echo, _ = w.open(echoFrame(t, inside, server, packet.ICMPEcho, 7, "x"))
	if c.prepare != nil {
		c.prepare(w)
		w.publish()
	}
	b := c.frame(p)
	before := clone(b)
	res := w.in(b, 1)
	w.expect(res, c.verdict, c.why)
	if c.verdict == Deliver {
		w.delivered(res, b)
	} else if string(b) != string(before) {
		t.Error("the frame was changed")
	}
	if n := w.drops(c.why); c.why != NoReason && n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// TestVerdictsInbound: what a frame received by an uplink becomes.
func TestVerdictsInbound(t *testing.T) {
	lost := func(w *world) { w.ups[0].Generation++ }
	held := func(w *world) { w.held = true }
	for _, c := range []inboundCase{
		{"udp", nil, func(p ports) []byte { return udpFrame(t, server, 53, wan1, p.udp, "x") }, Deliver, NoReason},
		{"tcp", nil, func(p ports) []byte { return tcpFrame(t, server, 80, wan1, p.tcp, synAck, "") }, Deliver, NoReason},
		{"echo reply", nil, func(p ports) []byte { return echoFrame(t, server, wan1, packet.ICMPEchoReply, p.echo, "x") }, Deliver, NoReason},
		{"error", nil, func(p ports) []byte { return errorFrame(t, router, wan1, udpFrame(t, wan1, p.udp, server, 53, "x")) }, Deliver, NoReason},
		{"nothing", nil, func(ports) []byte { return nil }, Drop, BadPacket},
		{"virtio header alone", nil, func(ports) []byte { return make([]byte, packet.VnetLen) }, Drop, BadPacket},
		{"cut short", nil, func(p ports) []byte { return udpFrame(t, server, 53, wan1, p.udp, "x")[:50] }, Drop, BadPacket},
		{"another remote", nil, func(p ports) []byte { return udpFrame(t, router, 53, wan1, p.udp, "x") }, Drop, Filtered},
		{"another remote port", nil, func(p ports) []byte { return tcpFrame(t, server, 81, wan1, p.tcp, syn, "") }, Drop, Filtered},
		{"to a socket of the host", held, func(p ports) []byte { return udpFrame(t, router, 53, wan1, p.udp, "x") }, GiveBack, NoReason},
		{"to a free port", nil, func(p ports) []byte { return udpFrame(t, server, 53, wan1, p.udp^1, "x") }, GiveBack, NoReason},
		{"to another address", nil, func(p ports) []byte { return udpFrame(t, server, 53, wan2, p.udp, "x") }, GiveBack, NoReason},
		{"lost address", lost, func(p ports) []byte { return udpFrame(t, server, 53, wan1, p.udp, "x") }, Drop, StaleSession},
		{"error, lost address", lost, func(p ports) []byte { return errorFrame(t, router, wan1, udpFrame(t, wan1, p.udp, server, 53, "x")) }, Drop, StaleSession},
		{"foreign error", nil, func(ports) []byte { return errorFrame(t, router, wan1, udpFrame(t, wan1, 1, server, 53, "x")) }, Ignore, NoReason},
		{"damaged error", nil, func(ports) []byte { return errorFrame(t, router, wan1, build(t, ip(wan1, server, protoUDP))) }, Ignore, NoReason},
		{"error about a reply", nil, func(p ports) []byte {
			return errorFrame(t, router, wan1, echoFrame(t, wan1, server, packet.ICMPEchoReply, p.echo, "x"))
		}, Ignore, NoReason},
		{"echo request", nil, func(p ports) []byte { return echoFrame(t, server, wan1, packet.ICMPEcho, p.echo, "x") }, Ignore, NoReason},
		{"foreign echo reply", nil, func(p ports) []byte { return echoFrame(t, router, wan1, packet.ICMPEchoReply, p.echo, "x") }, Ignore, NoReason},
		{"GRE", nil, func(ports) []byte { return build(t, ip(server, wan1, layers.IPProtocolGRE), gopacket.Payload("x")) }, GiveBack, NoReason},
		{"IGMP", nil, func(ports) []byte { return build(t, ip(server, wan1, layers.IPProtocolIGMP), gopacket.Payload("x")) }, Ignore, NoReason},
		{"redirect", nil, func(p ports) []byte { return echoFrame(t, server, wan1, 5, p.echo, "x") }, Ignore, NoReason},
		{"ARP", nil, func(p ports) []byte { return typed(udpFrame(t, server, 53, wan1, p.udp, "x"), 0x0806) }, Ignore, NoReason},
		{"IPv6", nil, func(p ports) []byte { return typed(udpFrame(t, server, 53, wan1, p.udp, "x"), 0x86dd) }, Ignore, NoReason},
	} {
		t.Run(c.name, c.run)
	}
}

// TestOwnSource: a packet with an uplink's address leaves by that uplink as it is, whatever the scheduler would say.
func TestOwnSource(t *testing.T) {
	w := newWorld(t)
	for _, f := range [][]byte{
		udpFrame(t, wan2, 53, server, 4000, "x"), tcpFrame(t, wan2, 80, server, 4000, synAck, ""),
		echoFrame(t, wan2, server, packet.ICMPEchoReply, 1, "x"), partial(tcpFrame(t, wan2, 80, server, 4000, ack, "x")),
	} {
		b := clone(f)
		w.sent(w.out(b), b, 2)
		if string(b) != string(f) {
			t.Error("the frame was changed")
		}
	}
	if n := w.table.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestUnproven: an uplink whose probes never succeeded carries sessions when there is no better one.
func TestUnproven(t *testing.T) {
	w := newWorld(t)
	w.ups[0].State, w.ups[0].Unproven, w.ups[1].State = uplinks.Down, true, uplinks.Probing
	w.publish()
	if _, u := w.open(udpFrame(t, inside, 4000, server, 53, "x")); u != 2 {
		t.Errorf("uplink %d, though another is not judged yet", u)
	}
	w.ups[1].State = uplinks.Down
	w.publish()
	if _, u := w.open(udpFrame(t, inside, 4001, server, 53, "x")); u != 1 {
		t.Errorf("uplink %d, though its probes had succeeded before", u)
	}
}

// TestMappingDecides: while an endpoint has a mapping, its sessions use that uplink and port (RFC 4787 REQ-1).
func TestMappingDecides(t *testing.T) {
	w := newWorld(t)
	port, uplink := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	w.ups[0].Tier, w.ups[1].Tier = 1, 0
	w.publish()
	if p, u := w.open(udpFrame(t, inside, 4000, router, 53, "x")); p != port || u != uplink {
		t.Errorf("port %d on uplink %d, want %d on %d", p, u, port, uplink)
	}
	if _, u := w.open(udpFrame(t, inside, 4001, router, 53, "x")); u == uplink {
		t.Error("another endpoint went the same way")
	}
}

// TestSessionsMove: of an uplink that is down, all but TCP beyond its opening, and only when there is another.
func TestSessionsMove(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, next []byte
		answer      func(port uint16) []byte
		want        uint8
	}{
		{"udp", udpFrame(t, inside, 4000, server, 53, "x"), udpFrame(t, inside, 4000, server, 53, "y"), nil, 2},
		{"echo", echoFrame(t, inside, server, packet.ICMPEcho, 7, "x"), echoFrame(t, inside, server, packet.ICMPEcho, 7, "y"), nil, 2},
		{"tcp opening", tcpFrame(t, inside, 4000, server, 80, syn, ""), tcpFrame(t, inside, 4000, server, 80, syn, ""), nil, 2},
		{"tcp, not a SYN", tcpFrame(t, inside, 4000, server, 80, syn, ""), tcpFrame(t, inside, 4000, server, 80, ack, ""), nil, 1},
		{"tcp answered", tcpFrame(t, inside, 4000, server, 80, syn, ""), tcpFrame(t, inside, 4000, server, 80, ack, "x"),
			func(port uint16) []byte { return tcpFrame(t, server, 80, wan1, port, synAck, "") }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			port, uplink := w.open(c.first)
			if uplink != 1 {
				t.Fatalf("opened on uplink %d", uplink)
			}
			if c.answer != nil {
				w.expect(w.in(c.answer(port), 1), Deliver, NoReason)
			}
			w.ups[0].State = uplinks.Down
			w.publish()
			b := clone(c.next)
			w.sent(w.out(b), b, c.want)
			w.ups[1].State = uplinks.Down
			w.publish()
			b = clone(c.next)
			w.sent(w.out(b), b, c.want) // nothing better: it stays
		})
	}
}

// TestUnprobedUplinksServe when there is none that is known to work.
func TestUnprobedUplinksServe(t *testing.T) {
	w := newWorld(t)
	w.ups[0].State, w.ups[1].State = uplinks.Down, uplinks.Probing
	w.publish()
	if _, u := w.open(udpFrame(t, inside, 4000, server, 53, "x")); u != 2 {
		t.Errorf("uplink %d", u)
	}
}

// TestReasonsHaveNames: they are labels of a metric.
func TestReasonsHaveNames(t *testing.T) {
	names := make(map[string]bool)
	newWorld(t).g.Drops(func(reason string, _ uint64) {
		if reason == "" || names[reason] {
			t.Errorf("%q is empty or used twice", reason)
		}
		names[reason] = true
	})
	if len(names) != int(numReasons)-1 {
		t.Errorf("%d names", len(names))
	}
}
