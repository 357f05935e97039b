package tapgw

import (
	"testing"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	seenByHost  = 51820 // a service outside the pool
	seenByUs    = 5060  // a service inside it
	remoteAsked = 4000
)

// newHost is a world whose host has two services.
func newHost(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.held = true
	w.g.SetServices([]uint16{seenByHost}, []uint16{seenByUs})
	return w
}

// answer is how the host's answer to server leaves.
func (w *world) answer(service uint16) (port uint16, uplink uint8) {
	w.t.Helper()
	b := udpFrame(w.t, tapIP, service, server, remoteAsked, "answer")
	res := w.out(b)
	s := w.sent(res, b, res.Uplink)
	if src := s.ip.SrcIP.String(); src != wan1.Netip().String() && res.Uplink == 1 {
		w.t.Errorf("source %s", src)
	}
	return outsidePort(s), res.Uplink
}

// TestServices: an answer of the host leaves from the port and by the uplink its remote spoke to last.
func TestServices(t *testing.T) {
	for _, c := range []struct {
		service uint16
		verdict Verdict
	}{{seenByHost, Ignore}, {seenByUs, GiveBack}} {
		w := newHost(t)
		w.expect(w.in(udpFrame(t, server, remoteAsked, wan2, c.service, "x"), 2), c.verdict, NoReason)
		if port, uplink := w.answer(c.service); port != c.service || uplink != 2 {
			t.Errorf("port %d of uplink %d, want %d of 2", port, uplink, c.service)
		}
		w.expect(w.in(udpFrame(t, server, remoteAsked, wan1, c.service, "x"), 1), c.verdict, NoReason)
		if port, uplink := w.answer(c.service); port != c.service || uplink != 1 {
			t.Errorf("port %d of uplink %d, want %d of 1", port, uplink, c.service)
		}
		if n := w.table.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions", n)
		}
	}
}

// TestResponseByDownUplink: what a remote asks by an uplink whose probes fail is answered by it; more than an answer is not tried there
// before the remote has spoken.
func TestResponseByDownUplink(t *testing.T) {
	w := newHost(t)
	ask := func() { w.expect(w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2), Ignore, NoReason) }
	ask()
	w.ups[1].State = uplinks.Down
	w.publish()
	if _, uplink := w.answer(seenByHost); uplink != 1 {
		t.Errorf("by uplink %d before the remote was heard by the other", uplink)
	}
	ask()
	if port, uplink := w.answer(seenByHost); port != seenByHost || uplink != 2 {
		t.Errorf("port %d of uplink %d, want %d of 2", port, uplink, seenByHost)
	}
}

// TestNoResponse: what is not an answer, or cannot leave as one any more, is translated as anything else.
func TestNoResponse(t *testing.T) {
	asked := func(w *world) {
		w.expect(w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2), Ignore, NoReason)
	}
	for name, prepare := range map[string]func(*world){
		"never asked":         func(*world) {},
		"another remote port": func(w *world) { w.in(udpFrame(t, server, remoteAsked+1, wan2, seenByHost, "x"), 2) },
		"another service":     func(w *world) { w.in(udpFrame(t, server, remoteAsked, wan2, seenByUs, "x"), 2) },
		"no service any more": func(w *world) { asked(w); w.g.SetServices(nil, nil) },
		"uplink down":         func(w *world) { asked(w); w.ups[1].State = uplinks.Down; w.publish() },
		"uplink gone":         func(w *world) { asked(w); w.ups[1].ID = 0; w.publish() },
		"another address":     func(w *world) { asked(w); w.ups[1].Addresses[0] = router.Netip(); w.publish() },
		"not ready":           func(w *world) { asked(w); w.ups[1].GatewayMAC = [6]byte{}; w.publish() },
		"long ago": func(w *world) {
			w.g.Inbound(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2, start-nat.TickOf(remoteLife+time.Second))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHost(t)
			prepare(w)
			if port, uplink := w.answer(seenByHost); port == seenByHost || uplink != 1 {
				t.Errorf("port %d of uplink %d", port, uplink)
			}
		})
	}
}

// TestServiceFragments: a large answer leaves in pieces, in any order, from the port and by the uplink of the request.
func TestServiceFragments(t *testing.T) {
	for _, order := range permutations(3) {
		w := newHost(t)
		w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2)
		passed, res := w.carry(cut(t, udpFrame(t, tapIP, seenByHost, server, remoteAsked, big), 1480), order, w.out)
		if len(passed) != 3 || res.Uplink != 2 {
			t.Fatalf("order %v: %d pieces by uplink %d", order, len(passed), res.Uplink)
		}
		if s := look(t, join(t, passed)); s.ip.SrcIP.String() != wan2.Netip().String() || outsidePort(s) != seenByHost {
			t.Errorf("order %v: from %s:%d", order, s.ip.SrcIP, outsidePort(s))
		}
	}
}

// TestServicesWithoutUsableUplink: where no uplink is usable an answer leaves where the question came in all the same.
func TestServicesWithoutUsableUplink(t *testing.T) {
	w := newHost(t)
	w.ups[0].State, w.ups[1].State = uplinks.Down, uplinks.Down
	w.publish()
	w.expect(w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2), Ignore, NoReason)
	if port, uplink := w.answer(seenByHost); port != seenByHost || uplink != 2 {
		t.Errorf("port %d of uplink %d", port, uplink)
	}
}

// TestHostIsFaster: the host answers before the copy of the request has been read.
func TestHostIsFaster(t *testing.T) {
	w := newHost(t)
	w.settle = func() { w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2) }
	if port, uplink := w.answer(seenByHost); port != seenByHost || uplink != 2 {
		t.Errorf("port %d of uplink %d", port, uplink)
	}
	w = newHost(t)
	w.settle = func() { w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2) }
	passed, res := w.carry(cut(t, udpFrame(t, tapIP, seenByHost, server, remoteAsked, big), 1480), []int{0, 1, 2}, w.out)
	if len(passed) != 3 || res.Uplink != 2 {
		t.Errorf("%d fragments by uplink %d", len(passed), res.Uplink)
	}
}

// TestServiceTooBig: the host is told the uplink's MTU for its answers too.
func TestServiceTooBig(t *testing.T) {
	w := newHost(t)
	w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2)
	res := w.out(uncut(udpFrame(t, tapIP, seenByHost, server, remoteAsked, big)))
	w.expect(res, Drop, TooBig)
	if res.Reply == nil {
		t.Error("the host is not told")
	}
}

// TestRemotes: a full bucket forgets who was silent the longest, and a flood of remotes nothing else.
func TestRemotes(t *testing.T) {
	r := newRemotes()
	const clients = remoteBuckets * remoteSlots * 4
	now := start
	for i := range clients {
		n := packet.IPv4(uint32(i))
		now = start + nat.Tick(i)/1000
		r.note(client{addr: n, port: 1, service: 2}, spoken{local: n, at: now})
		if s, ok := r.find(client{addr: n, port: 1, service: 2}, now); !ok || s.local != n {
			t.Fatalf("client %d: %+v %t", i, s, ok)
		}
	}
	known := 0
	for i := range clients {
		n := packet.IPv4(uint32(i))
		if s, ok := r.find(client{addr: n, port: 1, service: 2}, now); ok {
			known++
			if s.local != n {
				t.Fatalf("client %d spoke to %s", i, s.local.Netip())
			}
		}
	}
	if known < remoteBuckets*remoteSlots*9/10 {
		t.Errorf("%d of the latest %d clients are known", known, remoteBuckets*remoteSlots)
	}
	late := client{addr: packet.IPv4(clients - 1), port: 1, service: 2}
	if _, ok := r.find(late, now+nat.TickOf(remoteLife+time.Second)); ok {
		t.Error("a client is remembered for ever")
	}
}

// TestServicePathAllocatesNothing covers requests and responses.
func TestServicePathAllocatesNothing(t *testing.T) {
	w := newHost(t)
	request, response := udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), udpFrame(t, tapIP, seenByHost, server, remoteAsked, "x")
	b := make([]byte, len(response))
	n := testing.AllocsPerRun(100, func() {
		w.in(request, 2)
		copy(b, response)
		if res := w.out(b); res.Verdict != Send {
			t.Fatal(res)
		}
	})
	if n != 0 {
		t.Errorf("%g allocations", n)
	}
}
