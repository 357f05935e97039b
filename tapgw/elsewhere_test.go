package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// TestWrongUplink: what is for a mapping of another uplink than the one that received it is dropped and counted, in pieces
// too; what is for none is the host's.
func TestWrongUplink(t *testing.T) {
	w := newStaticWorld(t)
	port, _ := w.open(udpFrame(t, other, 4000, server, 53, "x"))
	b := tcpFrame(t, other, 4001, server, 80, syn, "")
	stream := outsidePort(w.sent(w.out(b), b, 1))
	b = echoFrame(t, other, server, packet.ICMPEcho, 7, "x")
	id := outsidePort(w.sent(w.out(b), b, 1))
	n := w.drops(WrongUplink)
	for name, b := range map[string][]byte{
		"a reply":                      udpFrame(t, server, 53, wan1, port, "x"),
		"of a stranger":                udpFrame(t, router, 53, wan1, port, "x"),
		"a segment":                    tcpFrame(t, server, 80, wan1, stream, synAck, ""),
		"an echo reply":                echoFrame(t, server, wan1, packet.ICMPEchoReply, id, "x"),
		"an error":                     errorFrame(t, router, wan1, udpFrame(t, wan1, port, server, 53, "x")),
		"to an inside host's address":  tcpFrame(t, server, 80, own, 1, syn, ""),
		"an echo request to the same":  echoFrame(t, server, own, packet.ICMPEcho, 1, "x"),
		"another protocol to the same": portlessFrame(t, 47, server, own, "x"),
	} {
		if res := w.in(b, 2); res.Verdict != Drop || res.Reason != WrongUplink {
			t.Errorf("%s: verdict %d, %s", name, res.Verdict, res.Reason)
		}
		n++
	}
	if got := w.drops(WrongUplink); got != n {
		t.Errorf("%d are counted, want %d", got, n)
	}
	pieces := cut(t, udpFrame(t, server, 53, wan1, port, big), 1480)
	w.expect(w.in(pieces[1], 2), Hold, NoReason)
	if res := w.in(pieces[0], 2); res.Verdict != Drop || len(res.Released) != 0 {
		t.Errorf("verdict %d, %d pieces released", res.Verdict, len(res.Released))
	}
	w.expect(w.in(pieces[2], 2), Drop, WrongUplink)
	for name, b := range map[string][]byte{
		"a free port":     udpFrame(t, server, 53, wan1, port^1, "x"),
		"of another kind": tcpFrame(t, server, 53, wan1, port, syn, ""),
		"an echo reply":   echoFrame(t, server, wan1, packet.ICMPEchoReply, id^1, "x"),
		"an echo request": echoFrame(t, server, wan1, packet.ICMPEcho, id, "x"),
		"an error":        errorFrame(t, router, wan1, udpFrame(t, wan1, port^1, server, 53, "x")),
	} {
		if res := w.in(b, 2); res.Verdict != GiveBack && res.Verdict != Ignore {
			t.Errorf("%s: verdict %d, %s", name, res.Verdict, res.Reason)
		}
	}
	w.held = true
	w.expect(w.in(udpFrame(t, router, 53, wan1, port, "x"), 2), GiveBack, NoReason)
}

// TestSameAddress: where both uplinks have an address, and use the same port of it, the one that received a packet judges it
// alone.
func TestSameAddress(t *testing.T) {
	w := newWorld(t, func(c *nat.Config) { c.Ports = []nat.PortRange{{First: 2000, Last: 2001}} })
	w.ups[1].Addresses = w.ups[0].Addresses
	w.publish()
	port, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	w.expect(w.in(udpFrame(t, server, 53, wan1, port, "x"), 2), GiveBack, NoReason)
	w.ups[0].Tier = 2
	w.publish()
	same, uplink := w.open(udpFrame(t, other, 4000, server, 53, "x"))
	if uplink != 2 || same != port {
		t.Fatalf("port %d of uplink %d, want %d of the other", same, uplink, port)
	}
	for id, to := range map[uint8]packet.Addr{1: inside, 2: other} {
		b := udpFrame(t, server, 53, wan1, port, "x")
		if s := w.delivered(w.in(b, id), b); s.dst() != to {
			t.Errorf("by uplink %d to %v", id, s.dst())
		}
		b = errorFrame(t, router, wan1, udpFrame(t, wan1, port, server, 53, "x"))
		if s := w.delivered(w.in(b, id), b); s.dst() != to {
			t.Errorf("error by uplink %d to %v", id, s.dst())
		}
	}
}

// TestServiceByAnotherUplink: the answer leaves by the uplink whose address was spoken to.
func TestServiceByAnotherUplink(t *testing.T) {
	w := newWorld(t)
	w.g.SetServices([]uint16{700}, nil)
	w.expect(w.in(udpFrame(t, server, 53, wan1, 700, "x"), 2), Ignore, NoReason)
	b := udpFrame(t, tapIP, 700, server, 53, "x")
	if s := w.sent(w.out(b), b, 1); s.src() != wan1 || outsidePort(s) != 700 {
		t.Errorf("the answer left as %v %d", s.src(), outsidePort(s))
	}
}
