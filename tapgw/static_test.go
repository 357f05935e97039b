package tapgw

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

var own = packet.IPv4(0x64400109) // 100.64.1.9, of uplink 1

// newStaticWorld is a world whose inside host has an outside address of its own on uplink 1.
func newStaticWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.ups[0].Addresses = append(w.ups[0].Addresses, own.Netip())
	w.ups[0].Static = []uplinks.Static{{Inside: inside.Netip(), Outside: own.Netip()}}
	w.publish()
	return w
}

// TestStaticOut: the host keeps its ports at its own address, another never gets that.
func TestStaticOut(t *testing.T) {
	w := newStaticWorld(t)
	for _, f := range [][]byte{
		udpFrame(t, inside, 53, server, 53, "x"), tcpFrame(t, inside, 22, server, 80, syn, ""), echoFrame(t, inside, server, packet.ICMPEcho, 7, "x"),
	} {
		var p packet.Packet
		p.Decode(f[packet.VnetLen:])
		want := p.SrcPort
		s := w.sent(w.out(f), f, 1)
		if s.src() != own || outsidePort(s) != want {
			t.Errorf("left as %v %d, not %d", s.src(), outsidePort(s), want)
		}
	}
	for port := range uint16(50) {
		f := udpFrame(t, other, port+1, server, 53, "x")
		if s := w.sent(w.out(f), f, 1); s.src() != wan1 {
			t.Fatalf("another left as %v", s.src())
		}
	}
	w.ups[0].State = uplinks.Down
	w.publish()
	f := udpFrame(t, inside, 53, server, 5353, "x")
	if s := w.sent(w.out(f), f, 2); s.src() != wan2 {
		t.Errorf("by the other uplink as %v", s.src())
	}
}

// TestStaticIn: what opens a session from outside, and what is dropped; nothing is left to the host.
func TestStaticIn(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*world)
		frame   []byte
		verdict Verdict
	}{
		{"udp", nil, udpFrame(t, server, 53, own, 9999, "x"), Deliver},
		{"syn", nil, tcpFrame(t, server, 80, own, 22, syn, ""), Deliver},
		{"protocol without ports", nil, build(t, ip(server, own, layers.IPProtocolGRE), gopacket.Payload("sixteen bytes...")), Deliver},
		{"echo request", nil, echoFrame(t, server, own, packet.ICMPEcho, 7, "x"), Deliver},
		{"segment of no connection", nil, tcpFrame(t, server, 80, own, 22, ack, "x"), Drop},
		{"reset of no connection", nil, tcpFrame(t, server, 80, own, 22, packet.RST, ""), Drop},
		{"from loopback", nil, udpFrame(t, packet.IPv4(0x7f000001), 53, own, 9999, "x"), Drop},
		{"error about nothing", nil, errorFrame(t, router, own, udpFrame(t, own, 1, server, 2, "x")), Drop},
		{"to the pool", nil, udpFrame(t, server, 53, wan1, 9999, "x"), GiveBack},
		{"port of a socket of the host", func(w *world) { w.held = true }, udpFrame(t, server, 53, own, 9999, "x"), Deliver},
		{"table full", func(w *world) {
			w.table.SetLimits(nat.Limits{Sessions: 1})
			w.out(udpFrame(t, inside, 1, server, 1, "x"))
		},
			udpFrame(t, server, 53, own, 9999, "x"), Drop},
		{"of two who talk by the other uplink", func(w *world) {
			w.ups[0].State = uplinks.Down
			w.publish()
			w.out(udpFrame(t, inside, 9999, server, 53, "x"))
			w.ups[0].State = uplinks.Up
			w.publish()
		}, udpFrame(t, server, 53, own, 9999, "x"), Drop},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newStaticWorld(t)
			if c.prepare != nil {
				c.prepare(w)
			}
			b := clone(c.frame)
			res := w.in(b, 1)
			if res.Verdict != c.verdict {
				t.Fatalf("verdict %d, reason %q", res.Verdict, res.Reason)
			}
			if res.Verdict == Deliver && look(t, b).dst() != inside {
				t.Errorf("delivered to %v", look(t, b).dst())
			}
		})
	}
}

// TestStaticAnswers: the answers of a host that was asked leave as they were asked for, echo replies too, also where new
// sessions would take another uplink; the endpoint's own sessions go on where they were.
func TestStaticAnswers(t *testing.T) {
	w := newStaticWorld(t)
	w.ups[0].Tier, w.ups[1].Tier = 1, 0
	w.publish()
	w.open(udpFrame(t, inside, 9999, router, 53, "x")) // by uplink 2
	for _, c := range []struct{ question, answer []byte }{
		{udpFrame(t, server, 53, own, 9999, "x"), udpFrame(t, inside, 9999, server, 53, "y")},
		{tcpFrame(t, server, 80, own, 22, syn, ""), tcpFrame(t, inside, 22, server, 80, synAck, "")},
		{echoFrame(t, server, own, packet.ICMPEcho, 7, "x"), echoFrame(t, inside, server, packet.ICMPEchoReply, 7, "x")},
	} {
		w.delivered(w.in(c.question, 1), c.question)
		if s := w.sent(w.out(c.answer), c.answer, 1); s.src() != own {
			t.Errorf("the answer left as %v", s.src())
		}
	}
	w.expect(w.out(echoFrame(t, inside, server, packet.ICMPEchoReply, 8, "x")), Drop, NoSession)
	f := udpFrame(t, inside, 9999, packet.IPv4(0xcb007109), 53, "x")
	w.sent(w.out(f), f, 2)
}

// TestStaticFragments: datagrams in pieces are delivered whole and in any order.
func TestStaticFragments(t *testing.T) {
	w := newStaticWorld(t)
	pieces := cut(t, udpFrame(t, server, 53, own, 9999, "a datagram that is long enough for several pieces"), 16)
	for i := len(pieces) - 1; i > 0; i-- {
		w.expect(w.in(pieces[i], 1), Hold, NoReason)
	}
	res := w.in(pieces[0], 1)
	w.expect(res, Deliver, NoReason)
	if len(res.Released) != len(pieces)-1 {
		t.Errorf("%d pieces released", len(res.Released))
	}
}

// TestStaticAloneOnItsUplink: where nobody shares an address, others take another uplink.
func TestStaticAloneOnItsUplink(t *testing.T) {
	w := newStaticWorld(t)
	w.ups[0].Addresses = []netip.Addr{own.Netip()}
	w.publish()
	f := udpFrame(t, other, 1, server, 53, "x")
	w.sent(w.out(f), f, 2)
	f = udpFrame(t, inside, 1, server, 53, "x")
	w.sent(w.out(f), f, 1)
}
