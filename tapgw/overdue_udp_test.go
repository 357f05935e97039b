package tapgw

import (
	"slices"
	"testing"
	"time"

	"tapgw/internal/packet"
)

// TestUnansweredUDP is never sent again; the client's next packet goes by another uplink, once.
func TestUnansweredUDP(t *testing.T) {
	p := newPatient(t)
	query := func() uint8 {
		_, uplink := p.open(udpFrame(t, inside, 4000, server, 53, "query"))
		return uplink
	}
	if uplink := query(); uplink != 1 {
		t.Fatalf("uplink %d", uplink)
	}
	p.pass(time.Second, 1) // other things come in
	if len(p.resent) != 0 {
		t.Fatal("duplicated")
	}
	if !slices.Equal(p.doubts, []uint8{1}) {
		t.Errorf("doubts about %d", p.doubts)
	}
	if uplink := query(); uplink != 2 {
		t.Errorf("the next packet goes by uplink %d", uplink)
	}
	p.pass(2 * time.Second)
	if uplink := query(); uplink != 2 {
		t.Error("goes back and forth")
	}
}

// TestUDPStays: a session that was answered, one of an endpoint with others, and a flow that wants no answer.
func TestUDPStays(t *testing.T) {
	p := newPatient(t)
	ask := func(inside packet.Addr, remote packet.Addr, port uint16) (uint16, uint8) {
		return p.open(udpFrame(t, inside, 4000, remote, port, "x"))
	}
	outside, _ := ask(inside, server, 53)
	p.pass(time.Second)
	p.expect(p.in(udpFrame(t, server, 53, wan1, outside, "late"), 1), Deliver, NoReason)
	if _, uplink := ask(inside, server, 53); uplink != 1 {
		t.Error("moved although it was answered late")
	}
	ask(inside, router, 53)
	p.pass(time.Second, 1)
	if _, uplink := ask(inside, router, 53); uplink != 1 {
		t.Error("moved away from its endpoint")
	}
	ask(other, server, 514)
	p.pass(time.Second, 1)
	if _, uplink := ask(other, server, 514); uplink != 1 {
		t.Error("a flow of one way moved while the uplink works")
	}
}
