package uplinks

import (
	"net/netip"
	"slices"
	"testing"

	"tapgw/internal/packet"
)

// TestStaticAddresses: those of static mappings come last, also when they are only routed here, are nobody else's, and never all
// that there are.
func TestStaticAddresses(t *testing.T) {
	spec := func(static ...Static) TrackerConfig {
		return TrackerConfig{Specs: []Spec{{Interface: "eth0", Static: static}}}
	}
	first, second, routed := Static{addr("10.0.0.2"), addr("192.0.2.7")}, Static{addr("10.0.0.3"), addr("192.0.2.8")}, Static{addr("10.0.0.4"), addr("203.0.113.9")}
	facts := (&world{}).eth(2, "eth0").addr(2, "192.0.2.7/24").addr(2, "192.0.2.8/24").via(2, "192.0.2.1", 100).Facts
	for _, c := range []struct {
		static       []Static
		pool, others []netip.Addr
	}{
		{nil, []netip.Addr{first.Outside, second.Outside}, nil},
		{[]Static{first}, []netip.Addr{second.Outside}, []netip.Addr{first.Outside}},
		{[]Static{second, routed}, []netip.Addr{first.Outside}, []netip.Addr{second.Outside, routed.Outside}},
		{[]Static{first, second}, []netip.Addr{first.Outside}, []netip.Addr{second.Outside}},
	} {
		s, _ := NewTracker(spec(c.static...)).Update(t0, facts)
		u := s.Uplinks[0]
		var pool []packet.Addr
		for _, a := range c.pool {
			pool = append(pool, packet.AddrOf(a))
		}
		if !slices.Equal(u.Addresses, slices.Concat(c.pool, c.others)) || !slices.Equal(u.Pool(), pool) || !slices.Equal(u.Whole(), c.others) {
			t.Errorf("%v: addresses %v, pool %v, whole %v", c.static, u.Addresses, u.Pool(), u.Whole())
		}
	}
}
