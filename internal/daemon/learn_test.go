package daemon

import (
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// TestActivityIsRead: what the sessions of each uplink do is looked at again only when that costs little.
func TestActivityIsRead(t *testing.T) {
	d := newTestDaemon(t)
	address := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	one := &uplinks.Uplink{ID: 1, Index: 2, Side: uplinks.Side{Addresses: address, Generation: 1}}
	labtest.Must(t, d.publish(uplinks.NewSnapshot([]*uplinks.Uplink{one}), nil))
	d.openSession(t, 1, 1001)
	d.openSession(t, 1, 1002)

	var m measuring
	m.assume(d.snapshot.Load())
	now := time.Now()
	m.activity.read(&d.tables, &m, now, d.pumps.clock.tick())
	if a := m.activity.of(1); !m.activity.fresh || a.Connections != 2 || a.Down.New != 2 || a.Up.New != 2 {
		t.Errorf("fresh %v, %+v", m.activity.fresh, a)
	}
	if a := m.activity.of(0); a != (uplinks.Activity{}) {
		t.Errorf("another uplink: %+v", a)
	}
	if m.activity.read(&d.tables, &m, now, d.pumps.clock.tick()); m.activity.fresh {
		t.Error("read again at once")
	}
	if m.activity.read(&d.tables, &m, m.activity.next, d.pumps.clock.tick()); !m.activity.fresh {
		t.Error("not read when it is due")
	}
}

// TestLearnersFollowTheirUplinks: another device, or another configuration, is learned anew.
func TestLearnersFollowTheirUplinks(t *testing.T) {
	var m measuring
	learner := func(u uplinks.Uplink) *uplinks.Learner {
		m.assume(uplinks.NewSnapshot([]*uplinks.Uplink{&u}))
		return m.learners[u.ID].Learner
	}
	u := uplinks.Uplink{ID: 3, Index: 7, CapacityUp: 1e7, CapacityDown: 1e8}
	first := learner(u)
	if again := learner(u); again != first {
		t.Error("nothing has changed, but what was learned is forgotten")
	}
	u.Index = 8
	second := learner(u)
	u.CapacityDown = 5e7
	if third := learner(u); second == first || third == second || third.Estimate(time.Now()).Capacity != (uplinks.Capacity{Up: 1e7, Down: 5e7}) {
		t.Errorf("learned %v, %v, %v", first, second, third)
	}
}

func TestPathOf(t *testing.T) {
	works := uplinks.Health{Known: true, Usable: true, RTT: time.Millisecond}
	for _, c := range []struct {
		name   string
		v4, v6 uplinks.Health
		want   uplinks.Path
	}{
		{"both", works, uplinks.Health{Usable: true, RTT: time.Second}, uplinks.Path{Known: true, RTT: time.Millisecond}},
		{"IPv6 alone", uplinks.Health{}, works, uplinks.Path{Known: true, RTT: time.Millisecond}},
		{"none", uplinks.Health{RTT: time.Second}, uplinks.Health{}, uplinks.Path{}},
		{"no answer yet", uplinks.Health{Usable: true}, uplinks.Health{}, uplinks.Path{}},
	} {
		if got := pathOf(&uplinks.Uplink{Side: uplinks.Side{Health: c.v4}, V6: uplinks.Side{Health: c.v6}}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
