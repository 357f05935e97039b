package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// letting is a filter for both protocols.
func letting(f nat.Filter) func(*nat.Config) {
	return func(c *nat.Config) { c.Filtering = nat.Filtering{UDP: f, TCP: f} }
}

// TestFiltering: who reaches a mapped endpoint, and that the answer leaves by the same outside endpoint.
func TestFiltering(t *testing.T) {
	for _, c := range []struct {
		filter            nat.Filter
		neighbour, others Verdict // another port of a remote that was sent to; another remote
	}{
		{nat.AddressAndPortDependent, Drop, Drop}, {nat.AddressDependent, Deliver, Drop}, {nat.EndpointIndependent, Deliver, Deliver},
	} {
		w := newWorld(t, letting(c.filter))
		udp, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
		tcp, _ := w.open(tcpFrame(t, inside, 4000, server, 80, syn, ""))
		for remote, want := range map[packet.Addr]Verdict{server: c.neighbour, router: c.others} {
			w.lets(udpFrame(t, remote, 99, wan1, udp, "x"), want, udpFrame(t, inside, 4000, remote, 99, "y"), udp)
			w.lets(tcpFrame(t, remote, 99, wan1, tcp, syn, ""), want, tcpFrame(t, inside, 4000, remote, 99, synAck, ""), tcp)
		}
	}
}

// lets hands over a first packet from outside and, when it is delivered as wanted, the answer, which must get a port.
func (w *world) lets(first []byte, want Verdict, answer []byte, port uint16) {
	w.t.Helper()
	why := NoReason
	if want == Drop {
		why = Filtered
	}
	res := w.in(first, 1)
	w.expect(res, want, why)
	if want == Drop {
		return
	}
	if s := w.delivered(res, first); s.dst() != inside || portOf(s) != 4000 {
		w.t.Errorf("delivered to %v port %d", s.dst(), portOf(s))
	}
	if s := w.sent(w.out(answer), answer, 1); s.src() != wan1 || outsidePort(s) != port {
		w.t.Errorf("answered from port %d of %v, want %d", outsidePort(s), s.src(), port)
	}
}

// portOf is the destination port.
func portOf(s *seen) uint16 { return remotePort(s, 0) }

// TestFilterLetsNothingElseIn: what is no first packet, is for a resting port or comes from where no host is.
func TestFilterLetsNothingElseIn(t *testing.T) {
	w := newWorld(t, letting(nat.EndpointIndependent))
	udp, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	tcp, _ := w.open(tcpFrame(t, inside, 4000, server, 80, syn, ""))
	for _, flags := range []uint8{ack, synAck, packet.RST, packet.FIN | packet.ACK, syn | packet.FIN} {
		w.expect(w.in(tcpFrame(t, router, 99, wan1, tcp, flags, ""), 1), Drop, NoSession)
	}
	w.expect(w.in(udpFrame(t, packet.IPv4(0xe0000001), 99, wan1, udp, "x"), 1), Drop, Filtered)
	w.expect(w.in(udpFrame(t, router, 99, wan1, udp^1, "x"), 1), GiveBack, NoReason)
	w.table.End(nat.Key{Inside: inside, InsidePort: 4000, Remote: server, RemotePort: 53, Proto: packet.ProtoUDP}, start)
	w.expect(w.in(udpFrame(t, router, 99, wan1, udp, "x"), 1), Drop, NoSession)
	if n := w.table.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// TestFragmentedFirstPacketFromOutside: its fragments are let in together, in any order.
func TestFragmentedFirstPacketFromOutside(t *testing.T) {
	w := newWorld(t, letting(nat.EndpointIndependent))
	udp, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	pieces := cut(t, udpFrame(t, router, 99, wan1, udp, big), 1480)
	w.expect(w.in(pieces[1], 1), Hold, NoReason)
	res := w.in(pieces[0], 1)
	w.delivered(res, pieces[0])
	if len(res.Released) != 1 {
		t.Fatalf("%d released", len(res.Released))
	}
	w.delivered(w.in(pieces[2], 1), pieces[2])
}

// TestErrorAboutUnansweredPacket: a closed port inside tells the remote so, with the mapping's own endpoint.
func TestErrorAboutUnansweredPacket(t *testing.T) {
	w := newWorld(t, letting(nat.EndpointIndependent))
	udp, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	first := udpFrame(t, router, 99, wan1, udp, "x")
	w.delivered(w.in(first, 1), first)
	b := errorFrame(t, inside, router, first)
	if s := w.sent(w.out(b), b, 1); s.src() != wan1 || s.dst() != router {
		t.Errorf("error from %v to %v", s.src(), s.dst())
	}
	if n := w.table.Stats().Offered; n != 1 {
		t.Errorf("%d offered: an error is no answer", n)
	}
}
