package nat

import (
	"testing"

	"tapgw/internal/packet"
)

func anySession(*Translation, uint32) bool { return true }

// severAll is Sever of the whole table.
func severAll(table *Table, uplink uint8, match func(*Translation, uint32) bool, now Tick) (list []Severed) {
	for first := uint32(1); first != 0; {
		list, first = table.Sever(uplink, match, first, now, list)
	}
	return list
}

// TestSever: of an uplink's sessions those of answered TCP end, and what their insides expect is told.
func TestSever(t *testing.T) {
	table := newTable(t, nil)
	open := func(proto uint8, port uint16, b Binding, steps ...step) Ref {
		r := mustOpen(t, table, key(proto, port, web, 80), b, after(0))
		play(t, table, r, after(0), steps...)
		return r
	}
	ended := open(protoTCP, 1, bind1, handshake...)
	play(t, table, ended, after(0), step{inbound, ack, 901, 101, TCPEstablished})
	table.counts[inbound][ended].seqEnd.Store(950) // data that are not acknowledged yet
	elsewhere := open(protoTCP, 2, bind2, handshake...)
	unanswered := open(protoTCP, 3, bind1, handshake[:1]...)
	half := open(protoTCP, 4, bind1, handshake[:2]...)
	over := open(protoTCP, 5, bind1, established(outSeg(rst, TCPReset))...)
	datagrams := open(protoUDP, 6, bind1)
	ruled := bind1
	ruled.Rule = 5
	waits := open(protoTCP, 8, ruled, handshake...)
	spared := open(protoTCP, 7, bind1, handshake...)

	list := severAll(table, bind1.Uplink, func(tr *Translation, rule uint32) bool { return tr.InsidePort != 7 && rule != 5 }, after(1))
	want := Severed{Key: key(protoTCP, 1, web, 80), Next: 901, End: 950}
	if len(list) != 1 || list[0] != want {
		t.Errorf("severed %+v, want %+v", list, want)
	}
	if s := table.Translation(ended).State; s != Ended {
		t.Errorf("the session is %v", s)
	}
	for _, r := range []Ref{elsewhere, unanswered, half, over, datagrams, spared, waits} {
		if tr := table.Translation(r); !tr.State.Live() || table.FindOut(tr.Key) != r || table.FindIn(tr.InKey()) != r {
			t.Errorf("the session %+v is %v", tr.Key, tr.State)
		}
	}
	if table.Owned(bind1.Uplink, protoTCP, bind1.Addresses[0], table.Translation(ended).OutsidePort) == Free {
		t.Error("the port does not rest")
	}
}

// TestSeverInParts: a table larger than a part is gone through to its end.
func TestSeverInParts(t *testing.T) {
	const sessions = 2*severChunk + 7
	table := newTable(t, func(c *Config) { c.MaxSessions = 2 * sessions })
	for i := range sessions {
		k := Key{Inside: packet.IPv4(0x0a000000 + uint32(i)), Remote: web, InsidePort: 1000, RemotePort: 80, Proto: protoTCP}
		play(t, table, mustOpen(t, table, k, bind1, after(0)), after(0), handshake...)
	}
	if n := len(severAll(table, bind1.Uplink, anySession, after(1))); n != sessions || table.SessionsOn(bind1.Uplink) != 0 {
		t.Errorf("%d of %d severed, %d left", n, sessions, table.SessionsOn(bind1.Uplink))
	}
	if list, next := table.Sever(bind1.Uplink, anySession, 1, after(2), nil); len(list) != 0 || next == 0 {
		t.Errorf("severed again: %d, next %d", len(list), next)
	}
}
