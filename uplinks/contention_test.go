package uplinks

import (
	"testing"
	"time"
)

// contend makes a meter of 100 Mbit/s see for 10 s what is there of sessions, and of traffic of theirs and of others in bits per
// second down.
func contend(connections int, s Streams, ours, others float64) *Meter {
	m := NewMeter(NewDemand())
	var total Counters
	for i := range 40 {
		now := t0.Add(time.Duration(i) * 250 * time.Millisecond)
		m.Sample(now, total, assumed(100*mbit, 100*mbit), connections)
		m.Contend(now, total, Activity{Connections: connections, Down: s})
		total.RxBytes += uint64((ours + others) / 8 / 4)
		s.Bytes += uint64(ours / 8 / 4)
	}
	return m
}

func TestExpect(t *testing.T) {
	for _, c := range []struct {
		name         string
		connections  int
		s            Streams
		ours, others float64
		now          int     // connections, when it is asked
		want         float64 // Mbit/s
	}{
		{"idle", 0, Streams{}, 0, 0, 0, 100},
		{"one download", 1, Streams{Active: 1, Steady: 100 * mbit}, 100 * mbit, 0, 1, 50},
		{"four downloads", 4, Streams{Active: 4, Steady: 90 * mbit}, 100 * mbit, 0, 4, 20},
		{"four more since", 4, Streams{Active: 4, Steady: 90 * mbit}, 100 * mbit, 0, 8, 100. / 9},
		{"three ended since", 4, Streams{Active: 4, Steady: 90 * mbit}, 100 * mbit, 0, 1, 50},
		{"two that have just begun", 2, Streams{Active: 2, New: 2}, 40 * mbit, 0, 2, 100. / 3},
		{"idle sessions", 500, Streams{Active: 1, Steady: 100 * mbit}, 100 * mbit, 0, 500, 50},
		{"slow sessions leave room", 30, Streams{Active: 30, Steady: 60 * mbit}, 60 * mbit, 0, 30, 40},
		{"and share it with a new one", 30, Streams{Active: 30, Steady: 60 * mbit}, 60 * mbit, 0, 31, 20},
		{"others", 0, Streams{}, 0, 80 * mbit, 0, 20},
		{"others and a download", 1, Streams{Active: 1, Steady: 20 * mbit}, 20 * mbit, 80 * mbit, 1, 10},
		{"more than there can be", 1, Streams{Active: 1, Steady: 80 * mbit}, 80 * mbit, 80 * mbit, 1, 10},
		{"downloads by QUIC", 2, Streams{Active: 3, Steady: 100 * mbit}, 100 * mbit, 0, 2, 25},
		{"all is others'", 0, Streams{}, 0, 120 * mbit, 0, 0.01},
	} {
		if got := contend(c.connections, c.s, c.ours, c.others).Expect(c.now) / mbit; got < c.want*0.97 || got > c.want*1.03 {
			t.Errorf("%s: %.2f Mbit/s, want %.2f", c.name, got, c.want)
		}
	}
}

// The direction that is worse off decides: a download needs the other one for its acknowledgements.
func TestExpectOfBothDirections(t *testing.T) {
	m := NewMeter(NewDemand())
	var total Counters
	a := Activity{Connections: 1, Up: Streams{Active: 1, Steady: 10 * mbit}}
	for i := range 40 {
		now := t0.Add(time.Duration(i) * 250 * time.Millisecond)
		m.Sample(now, total, assumed(10*mbit, 100*mbit), 1)
		m.Contend(now, total, a)
		total.TxBytes += 10 * mbit / 8 / 4
		a.Up.Bytes = total.TxBytes
	}
	if got := m.Expect(1) / mbit; got < 49 || got > 51 {
		t.Errorf("%.2f Mbit/s beside an upload, want half of the largest", got)
	}
	m.Reset()
	if got := m.Expect(0) / mbit; got != 100 {
		t.Errorf("%.2f Mbit/s of a new interface", got)
	}
}
