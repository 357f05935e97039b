package daemon

import (
	"net/netip"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/nat"
	"tapgw/uplinks"
)

func TestRatesAreOfTheSameSession(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	then := &counted{at: begin}
	then.set(uplinks.IPv4, &nat.Info{Ref: 7, Created: 3, BytesOut: 100, BytesIn: 1000})
	for name, test := range map[string]struct {
		family  uplinks.Family
		now     nat.Info
		out, in float64
	}{
		"the same session":              {uplinks.IPv4, nat.Info{Ref: 7, Created: 3, BytesOut: 350, BytesIn: 3000}, 1000, 8000},
		"another one in its record":     {uplinks.IPv4, nat.Info{Ref: 7, Created: 4, BytesOut: 350, BytesIn: 3000}, 0, 0},
		"counters that went back":       {uplinks.IPv4, nat.Info{Ref: 7, Created: 3, BytesOut: 50, BytesIn: 3000}, 0, 0},
		"one that was not there":        {uplinks.IPv4, nat.Info{Ref: 6, Created: 3, BytesOut: 350, BytesIn: 3000}, 0, 0},
		"one beyond all that there was": {uplinks.IPv4, nat.Info{Ref: 8, Created: 3, BytesOut: 350, BytesIn: 3000}, 0, 0},
		"one of the other family":       {uplinks.IPv6, nat.Info{Ref: 7, Created: 3, BytesOut: 350, BytesIn: 3000}, 0, 0},
	} {
		if out, in := then.rates(test.family, &test.now, begin.Add(2*time.Second)); out != test.out || in != test.in {
			t.Errorf("%s: %v and %v bit/s, want %v and %v", name, out, in, test.out, test.in)
		}
	}
}

// TestRatesOfSeveralAskers: each is measured over long enough, however soon one asks after the other, and nothing old is used.
func TestRatesOfSeveralAskers(t *testing.T) {
	var r sessionRates
	begin := time.Now()
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	for _, step := range []struct{ now, from float64 }{
		{0, -1}, {1, 0}, {1.1, 0}, {2, 1}, {2.4, 1}, {2.6, 2}, {20, -1}, {21, 20},
	} {
		from := r.since(at(step.now))
		if step.from < 0 && from != nil || step.from >= 0 && (from == nil || !from.at.Equal(at(step.from))) {
			t.Errorf("at %v: from %v, want %v", step.now, from, step.from)
		}
		r.keep(&counted{at: at(step.now)})
	}
}

func TestRatedSessions(t *testing.T) {
	d := newTestDaemon(t)
	u := &uplinks.Uplink{ID: 1, Name: "wan", Side: uplinks.Side{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Generation: 1}}
	if err := d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{u}), nil); err != nil {
		t.Fatal(err)
	}
	d.openSession(t, 1, 1001)
	n := 0
	backend{d}.RatedSessions(t.Context(), func(s api.Session) bool {
		n++
		return s.Uplink == "wan" && s.InBps == 0 && s.Program == ""
	})
	if n != 1 || d.rates.since(time.Now().Add(rateSpan)) == nil {
		t.Errorf("%d sessions, and what was counted is %v", n, d.rates.last.Load())
	}
}
