package nat

import (
	"testing"
	"time"
)

// TestDoubt: only a session that nothing has come back on is doubted, and its lifetime stays; an answer ends that.
func TestDoubt(t *testing.T) {
	table := newTable(t, nil)
	state := func(r Ref) State { return table.Translation(r).State }
	r := mustOpen(t, table, key(protoUDP, 1, web, 53), bind1, after(0))
	table.CountOut(r, after(0), 50, 1, datagram)
	table.Doubt(r)
	if state(r) != Unanswered || table.Answered(r) {
		t.Fatalf("%s", state(r))
	}
	table.CountOut(r, after(time.Minute), 50, 1, datagram)
	sweepAt(table, 2*time.Minute)
	if state(r) != Unanswered {
		t.Errorf("%s after more was sent", state(r))
	}
	table.CountIn(r, after(2*time.Minute), 50, 1, datagram)
	if state(r) != Active || !table.Answered(r) {
		t.Errorf("%s when answered", state(r))
	}
	table.Doubt(r)
	if state(r) != Active {
		t.Error("doubted although answered")
	}
	other := mustOpen(t, table, key(protoUDP, 2, web, 53), bind1, after(0))
	table.Doubt(other)
	table.Trust(other)
	if state(other) != Active {
		t.Errorf("%s when trusted", state(other))
	}
	connection := mustOpen(t, table, key(protoTCP, 2, web, 80), bind1, after(0))
	table.Doubt(connection)
	if state(connection) != TCPOpening {
		t.Errorf("a connection is %s", state(connection))
	}
	table.Doubt(other)
	drain(table, time.Hour)
	if n := table.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestMove: a session moves as long as nothing has come back, and its endpoint's mapping with it.
func TestMove(t *testing.T) {
	table := newTable(t, nil)
	moving, k := bind2, key(protoTCP, 1, web, 80)
	moving.Move = true
	mustFail(t, ErrAnswered, table, k, moving, after(0)) // there is none
	first := mustOpen(t, table, k, bind1, after(0))
	if !table.Alone(first) {
		t.Error("not alone")
	}
	second := mustOpen(t, table, k, moving, after(0))
	if up, ok := table.Bound(protoTCP, host, 1); second == first || table.FindOut(k) != second || !ok || up != isp2 {
		t.Errorf("session %d, then %d; the endpoint is on uplink %d", first, second, up)
	}
	if table.Alone(first) {
		t.Error("what has ended is alone")
	}
	mustOpen(t, table, key(protoTCP, 1, peer, 80), bind2, after(0))
	if table.Alone(second) {
		t.Error("alone beside another")
	}
	table.CountIn(second, after(0), 40, 1, segment(syn|ack))
	back := bind1
	back.Move = true
	mustFail(t, ErrAnswered, table, k, back, after(0))
	if n := table.Stats().Refused; n != (Refused{}) {
		t.Errorf("counted as refused: %+v", n)
	}
}
