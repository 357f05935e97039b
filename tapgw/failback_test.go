package tapgw

import (
	"testing"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// begun is when the sessions of the tests are opened, at tick start.
var begun = time.Unix(1_000_000, 0)

// standing is a world whose second uplink stood in for the first, which works again since a second after begun.
func standing(t *testing.T, before func(w *world)) *world {
	t.Helper()
	w := newWorld(t)
	w.ups[0].State = uplinks.Down
	w.publish()
	before(w)
	w.ups[0].State, w.ups[0].Since = uplinks.Up, begun.Add(time.Second)
	w.publish()
	return w
}

// recovered is Recovered of the second uplink, so long after the sessions were opened.
func (w *world) recovered(how uplinks.OnRecover, after time.Duration) []nat.Severed {
	u := w.ups[1]
	u.OnRecover = how
	return w.g.Recovered(&u, start+nat.TickOf(after), begun.Add(after))
}

// by fails unless a packet from inside leaves by the uplink.
func (w *world) by(frame []byte, uplink uint8) {
	w.t.Helper()
	b := clone(frame)
	w.sent(w.out(b), b, uplink)
}

// TestFailback: what leaves an uplink when a better one is back, and when.
func TestFailback(t *testing.T) {
	call, echo := udpFrame(t, inside, 4000, server, 7, "x"), echoFrame(t, inside, server, packet.ICMPEcho, 77, "x")
	data := tcpFrame(t, inside, 4001, server, 80, packet.ACK, "x")
	for name, c := range map[string]struct {
		how     uplinks.OnRecover
		after   time.Duration
		others  uint8 // uplink of the next packets, but TCP's
		severed int
	}{
		"drain, busy":  {uplinks.OnRecoverDrain, 5 * time.Second, 2, 0},
		"drain, quiet": {uplinks.OnRecoverDrain, 11 * time.Second, 1, 0},
		"move":         {uplinks.OnRecoverMove, 2 * time.Second, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := standing(t, func(w *world) {
				w.by(call, 2)
				w.by(echo, 2)
				w.converseBy(4001, 2)
			})
			if n := len(w.recovered(c.how, c.after)); n != c.severed {
				t.Errorf("%d connections severed, want %d", n, c.severed)
			}
			w.by(call, c.others)
			w.by(echo, c.others)
			if res := w.out(clone(data)); (res.Verdict == Send) != (c.severed == 0) {
				t.Errorf("a segment: %+v", res)
			}
		})
	}
}

// TestFailbackReceives: until its next packet from inside a session that leaves receives what is sent to where it was.
func TestFailbackReceives(t *testing.T) {
	call := udpFrame(t, inside, 4000, server, 7, "x")
	var answer []byte
	w := standing(t, func(w *world) {
		b := clone(call)
		answer = udpFrame(t, server, 7, wan2, uint16(w.sent(w.out(b), b, 2).udp.SrcPort), "y")
	})
	w.recovered(uplinks.OnRecoverMove, 2*time.Second)
	w.delivered(w.in(answer, 2), answer)
	w.by(call, 1)
}

// TestFailbackTogether: the sessions of one endpoint leave together, and to one place, or none of them does.
func TestFailbackTogether(t *testing.T) {
	one, two := udpFrame(t, inside, 4000, server, 7, "x"), udpFrame(t, inside, 4000, router, 7, "x")
	w := standing(t, func(w *world) { w.by(one, 2); w.by(two, 2) })
	later := start + nat.TickOf(9*time.Second)
	if b := clone(two); w.g.Outbound(b, later).Uplink != 2 {
		t.Fatal("moved too early")
	}
	w.recovered(uplinks.OnRecoverDrain, 11*time.Second)
	w.by(one, 2)
	w.recovered(uplinks.OnRecoverDrain, 30*time.Second)
	w.by(one, 1)
	w.by(two, 1)
	if n := w.table.SessionsOn(2); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestFailbackSpares: what would not be placed elsewhere stays, and connections that were opened beside a better uplink.
func TestFailbackSpares(t *testing.T) {
	ruled, free := udpFrame(t, inside, 4000, server, 53, "x"), udpFrame(t, inside, 4001, server, 54, "x")
	w := standing(t, func(w *world) {
		p := grouped(policy.Refuse)
		must(t, w.g.SetPlan(p))
		w.ups[1].Name = "wan2"
		w.publish()
		w.by(ruled, 2)
		w.by(free, 2)
		w.converseBy(4002, 2)
	})
	w.ups[0].Since = begun.Add(-time.Second)
	w.publish()
	if n := len(w.recovered(uplinks.OnRecoverMove, 2*time.Second)); n != 0 {
		t.Errorf("%d connections severed", n)
	}
	w.by(ruled, 2)
	w.ups[0].State = uplinks.Down
	w.publish()
	w.by(free, 2)
	w.ups[0].State = uplinks.Up
	w.publish()
	w.by(free, 2) // it has stayed, as nothing better worked
}
