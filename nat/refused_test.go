package nat

import (
	"testing"
	"time"
)

// What comes in for a UDP endpoint that is gone does not keep its session, nor do the errors that answer it; what the inside
// sends does.
func TestRFC7857_RefusedPacketsDoNotRefresh(t *testing.T) {
	table := newTable(t, nil)
	flooded, used := key(protoUDP, 1, web, 53), key(protoUDP, 2, web, 53)
	gone, there := mustOpen(t, table, flooded, bind1, after(0)), mustOpen(t, table, used, bind1, after(0))
	for s := range 299 {
		now := after(time.Duration(s) * time.Second)
		for _, r := range []Ref{gone, there} {
			table.CountIn(r, now, 60, 1, datagram)
			table.Refuse(r)
		}
		table.CountOut(there, now, 60, 1, datagram)
	}
	if !alive(table, flooded, 5*time.Minute) {
		t.Error("an error ended the session")
	}
	if alive(table, flooded, 5*time.Minute+time.Second) {
		t.Error("a flood that nobody takes keeps the session")
	}
	if !alive(table, used, 9*time.Minute) {
		t.Error("a session that the inside uses ended")
	}
}

// A connection is refused by a RST; an ICMP error changes nothing of it (RFC 5382 REQ-10).
func TestRFC5382_REQ10_ErrorsDoNotMoveTheState(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0))
	play(t, table, r, after(0), handshake...)
	table.Refuse(r)
	play(t, table, r, after(0), outSeg(ack, TCPEstablished), inSeg(ack, TCPEstablished))
}
