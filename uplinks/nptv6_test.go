package uplinks

import (
	"net/netip"
	"slices"
	"testing"
)

// TestNPTv6: the side of IPv6 has the prefixes that are configured, and sessions of one that is no longer are over; its health is as
// before.
func TestNPTv6(t *testing.T) {
	first, second := NPTv6{pfx("fd00:1::/48"), pfx("2001:db8:100::/48")}, NPTv6{pfx("fd00:2::/48"), pfx("2001:db8:200::/48")}
	config := func(n ...NPTv6) TrackerConfig { return TrackerConfig{Specs: []Spec{{Interface: "eth0", NPTv6: n}}} }
	tr := NewTracker(config(first))
	look := func() *Uplink {
		s, _ := tr.Update(t0, dual().Facts)
		return s.Uplinks[0]
	}
	u := look()
	if err := tr.SetHealth(u.ID, IPv6, fine); err != nil {
		t.Fatal(err)
	}
	generation := u.V6.Generation
	for _, c := range []struct {
		pairs []NPTv6
		lost  bool
	}{{[]NPTv6{first}, false}, {[]NPTv6{first, second}, false}, {[]NPTv6{second}, true}, {nil, true}, {[]NPTv6{first}, false}} {
		tr.Configure(config(c.pairs...))
		u := look()
		if !slices.Equal(u.V6.NPTv6, c.pairs) || len(u.NPTv6) != 0 || (u.V6.Generation != generation) != c.lost || u.V6.State != Up {
			t.Errorf("%v: %v and %v of IPv4, generation %d after %d, %s", c.pairs, u.V6.NPTv6, u.NPTv6, u.V6.Generation, generation, u.V6.State)
		}
		generation = u.V6.Generation
	}
	tr.Configure(config(NPTv6{pfx("fd00:3::/56"), pfx("2001:db8:300::/48")}, NPTv6{pfx("fd00:4::/48"), pfx("2001:db8:400::/60")}, second))
	s, _ := tr.Update(t0, dual().Facts)
	if got := s.Prefixes(); !slices.Equal(got, []netip.Prefix{pfx("2001:db8:300::/56"), pfx("2001:db8:400::/60"), second.Outside}) {
		t.Errorf("outside: %v", got)
	}
}
