package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// turning is a world in which a LAN host is mapped on uplink 1 and another one on uplink 2, and the UDP port of each.
func turning(t testing.TB, f nat.Filter) (w *world, one, two uint16) {
	w = newWorld(t, letting(f))
	one, _ = w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	w.ups[0].Tier = 2
	w.publish()
	b := udpFrame(t, other, 5000, server, 53, "x")
	return w, one, outsidePort(w.sent(w.out(b), b, 2))
}

// turned fails unless a frame of the inside comes to an inside endpoint from an outside one.
func (w *world) turned(b []byte, from packet.Addr, sport uint16, to packet.Addr, dport uint16) {
	w.t.Helper()
	s := w.delivered(w.out(b), b)
	if s.src() != from || uint16(s.udp.SrcPort) != sport || s.dst() != to || portOf(s) != dport {
		w.t.Errorf("turned to %v:%d to %v:%d", s.src(), s.udp.SrcPort, s.dst(), portOf(s))
	}
}

// TestTurning: both directions, across uplinks, with complete and unfinished checksums; no kernel program may carry either
// session.
func TestTurning(t *testing.T) {
	for _, form := range []func([]byte) []byte{clone, partial} {
		w, one, two := turning(t, nat.EndpointIndependent)
		for range 2 {
			w.turned(form(udpFrame(t, inside, 4000, wan2, two, "hello")), wan1, one, other, 5000)
			w.turned(form(udpFrame(t, other, 5000, wan1, one, "hello")), wan2, two, inside, 4000)
		}
		n := 0
		w.table.Sessions(func(i nat.Info) bool {
			if i.Turned != (i.Remote == wan1 || i.Remote == wan2) {
				t.Errorf("%+v", i)
			}
			n++
			return true
		})
		if n != 4 {
			t.Errorf("%d sessions", n)
		}
	}
}

// TestTurningIsFiltered: like a packet from outside, and a SYN alone opens nothing there.
func TestTurningIsFiltered(t *testing.T) {
	w, one, two := turning(t, nat.AddressDependent)
	first := udpFrame(t, inside, 4000, wan2, two, "x")
	w.expect(w.out(first), Drop, Filtered)
	w.turned(udpFrame(t, other, 5000, wan1, one, "x"), wan2, two, inside, 4000) // inside has sent there now
	w.turned(udpFrame(t, inside, 4000, wan2, two, "x"), wan1, one, other, 5000)
}

// TestTurningInFragments: in any order.
func TestTurningInFragments(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}} {
		w, one, two := turning(t, nat.EndpointIndependent)
		pieces := cut(t, udpFrame(t, inside, 4000, wan2, two, big), 1480)
		var came [][]byte
		for _, i := range order {
			res := w.out(pieces[i])
			switch {
			case res.Verdict == Deliver:
				came = append(append(came, pieces[i]), res.Released...)
			case res.Verdict != Hold:
				t.Fatalf("%v: verdict %d, %s", order, res.Verdict, res.Reason)
			}
		}
		if len(came) != len(pieces) {
			t.Fatalf("%v: %d of %d came", order, len(came), len(pieces))
		}
		s := look(t, join(t, came))
		if s.src() != wan1 || s.dst() != other || uint16(s.udp.SrcPort) != one || portOf(s) != 5000 {
			t.Errorf("%v: from %v:%d to %v:%d", order, s.src(), s.udp.SrcPort, s.dst(), portOf(s))
		}
	}
}

// TestErrorsTurn: about a packet that turned, to who sent it, and with what was sent in it.
func TestErrorsTurn(t *testing.T) {
	w, _, two := turning(t, nat.EndpointIndependent)
	sent := udpFrame(t, inside, 4000, wan2, two, "x")
	came := clone(sent)
	w.delivered(w.out(came), came)
	b := errorFrame(t, other, wan1, came)
	s := w.delivered(w.out(b), b)
	if s.src() != wan2 || s.dst() != inside {
		t.Errorf("error from %v to %v", s.src(), s.dst())
	}
	var quoted, want packet.Packet
	quoted.DecodeIPv4(s.icmp.Payload, 0)
	want.DecodeIPv4(sent[packet.VnetLen+packet.EthernetLen:], 0)
	if quoted.Src != want.Src || quoted.Dst != want.Dst || quoted.SrcPort != want.SrcPort || quoted.DstPort != want.DstPort {
		t.Errorf("about %+v, want %+v", quoted, want)
	}
}

// TestHostsOwnPacketsReturn: what is for no mapping of the LAN is the host's, unchanged.
func TestHostsOwnPacketsReturn(t *testing.T) {
	w, one, _ := turning(t, nat.EndpointIndependent)
	hosts := w.openFrom(tapIP, 2)
	for name, b := range map[string][]byte{
		"a free port":        udpFrame(t, inside, 4000, wan1, one^1, "x"),
		"of another address": udpFrame(t, inside, 4000, wan2, one, "x"),
		"a closed TCP port":  tcpFrame(t, inside, 4000, wan1, 80, syn, ""),
		"a connection":       tcpFrame(t, inside, 4000, wan1, 80, ack, ""),
		"the host's mapping": udpFrame(t, inside, 4000, wan2, hosts, "x"),
		"a ping":             echoFrame(t, inside, wan1, packet.ICMPEcho, 7, "x"),
		"a foreign error":    errorFrame(t, inside, wan1, udpFrame(t, wan1, 53, inside, 4000, "x")),
		"a damaged error":    errorFrame(t, inside, wan1, build(t, ip(wan1, inside, protoUDP))),
	} {
		before := clone(b)
		if res := w.out(b); res.Verdict != Return || string(b) != string(before) {
			t.Errorf("%s: verdict %d, %s", name, res.Verdict, res.Reason)
		}
	}
	for _, big := range cut(t, echoFrame(t, inside, wan1, packet.ICMPEcho, 7, big), 1480) {
		w.expect(w.out(big), Return, NoReason)
	}
	w.held = true
	w.expect(w.out(udpFrame(t, inside, 4000, wan1, one, "x")), Return, NoReason)
}

// openFrom maps an endpoint on an uplink and returns its port.
func (w *world) openFrom(src packet.Addr, uplink uint8) uint16 {
	w.t.Helper()
	b := udpFrame(w.t, src, 6000, server, 53, "x")
	return outsidePort(w.sent(w.out(b), b, uplink))
}

// TestTurningToAStaticAddress: all that is sent to a LAN host's own address reaches it, whatever the port, as do its answers the
// other; what it lets in is its own firewall's.
func TestTurningToAStaticAddress(t *testing.T) {
	w := newStaticWorld(t)
	for _, c := range []struct {
		question, answer func(to packet.Addr, port uint16) []byte
	}{
		{func(to packet.Addr, _ uint16) []byte { return udpFrame(t, other, 4000, to, 22, "x") },
			func(to packet.Addr, port uint16) []byte { return udpFrame(t, inside, 22, to, port, "y") }},
		{func(to packet.Addr, _ uint16) []byte { return tcpFrame(t, other, 4000, to, 22, syn, "") },
			func(to packet.Addr, port uint16) []byte { return tcpFrame(t, inside, 22, to, port, synAck, "") }},
		{func(to packet.Addr, _ uint16) []byte { return echoFrame(t, other, to, packet.ICMPEcho, 7, "x") },
			func(to packet.Addr, id uint16) []byte { return echoFrame(t, inside, to, packet.ICMPEchoReply, id, "x") }},
	} {
		b := c.question(own, 0)
		s := w.delivered(w.out(b), b)
		if s.src() != wan1 || s.dst() != inside {
			t.Fatalf("from %v to %v", s.src(), s.dst())
		}
		b = c.answer(wan1, outsidePort(s))
		if s = w.delivered(w.out(b), b); s.src() != own || s.dst() != other {
			t.Errorf("answered from %v to %v", s.src(), s.dst())
		}
	}
	b := portlessFrame(t, 47, other, own, "x")
	w.delivered(w.out(b), b)
	b = portlessFrame(t, 47, inside, wan1, "y")
	expectDatagram(t, w.delivered(w.out(b), b), 47, own, other, "y")
	w.expect(w.out(tcpFrame(t, other, 4000, own, 80, ack, "")), Drop, NotSYN)
	w.expect(w.out(udpFrame(t, inside, 9, wan1, 9, "x")), Return, NoReason)
	w.expect(w.out(echoFrame(t, inside, wan1, packet.ICMPEcho, 9, "x")), Return, NoReason)
}
