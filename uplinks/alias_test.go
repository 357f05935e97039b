package uplinks

import (
	"net/netip"
	"slices"
	"testing"
)

// cable is an uplink with a public address, and one by which its modem is reached.
func cable() *world {
	return new(world).eth(2, "eth0").addr(2, "192.168.100.2/24").addr(2, "203.0.113.7/24").via(2, "203.0.113.1", 100).
		arp(2, "203.0.113.1", 1, 2)
}

// TestAliases: sessions are translated to an address that may reach the Internet, as long as there is one.
func TestAliases(t *testing.T) {
	spec := func(addresses ...netip.Addr) TrackerConfig {
		cfg := healthy()
		cfg.Specs = []Spec{{Name: "eth0", Addresses: addresses}}
		return cfg
	}
	for name, c := range map[string]struct {
		cfg    TrackerConfig
		change func(*world)
		want   []string
	}{
		"modem":               {healthy(), func(*world) {}, []string{"203.0.113.7"}},
		"configured":          {spec(), func(*world) {}, []string{"203.0.113.7"}},
		"configured address":  {spec(addr("192.168.100.2")), func(*world) {}, []string{"192.168.100.2"}},
		"another public one":  {healthy(), func(w *world) { w.addr(2, "198.51.100.9/29") }, []string{"203.0.113.7", "198.51.100.9"}},
		"shared space":        {healthy(), func(w *world) { w.addr(2, "100.64.3.4/10") }, []string{"203.0.113.7", "100.64.3.4"}},
		"gateway in both":     {healthy(), func(w *world) { w.Routes[0].Gateway = addr("192.168.100.1") }, []string{"192.168.100.2", "203.0.113.7"}},
		"source in another":   {healthy(), func(w *world) { w.Routes[0].Source = addr("192.168.100.2") }, []string{"192.168.100.2", "203.0.113.7"}},
		"private gateway":     {healthy(), func(w *world) { w.Addresses[1].Prefix = pfx("203.0.113.7/32"); w.Routes[0].Gateway = addr("10.9.9.1") }, []string{"203.0.113.7"}},
		"nothing but private": {healthy(), func(w *world) { w.Addresses[1].Prefix = pfx("172.16.0.7/32"); w.Routes[0].Gateway = addr("10.9.9.1") }, []string{"192.168.100.2", "172.16.0.7"}},
		"behind a router":     {healthy(), func(w *world) { w.Addresses[1].Prefix = pfx("10.9.9.7/24"); w.Routes[0].Gateway = addr("10.9.9.1") }, []string{"10.9.9.7"}},
		"two of its subnet": {healthy(), func(w *world) {
			w.Addresses[1].Prefix = pfx("10.9.9.7/24")
			w.addr(2, "10.9.9.8/24")
			w.Routes[0].Gateway = addr("10.9.9.1")
		}, []string{"10.9.9.7", "10.9.9.8"}},
	} {
		w := cable()
		c.change(w)
		s, _ := NewTracker(c.cfg).Update(t0, w.Facts)
		var got []string
		for _, a := range s.ByID(0).Addresses {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestAliasesEndNoSession: whatever comes and goes around the address that sessions use, they live on.
func TestAliasesEndNoSession(t *testing.T) {
	dropRoute := func(w *world) { w.Routes = nil }
	dropPublic := func(w *world) { w.Addresses, w.Routes = w.Addresses[:1], nil }
	restore := func(w *world) { w.Facts = cable().Facts }
	sourced := func(w *world) { w.Routes[0].Source = addr("192.168.100.2") }
	for name, steps := range map[string][]func(*world){
		"route flaps":             {dropRoute, restore, dropRoute, restore},
		"route flaps, sourced":    {sourced, dropRoute, func(w *world) { restore(w); sourced(w) }},
		"carrier":                 {func(w *world) { w.link(2).Carrier = false; dropRoute(w) }, dropPublic, restore},
		"lease is lost and back":  {dropPublic, func(w *world) { w.addr(2, "203.0.113.7/24") }, restore},
		"alias goes and comes":    {func(w *world) { w.Addresses = w.Addresses[1:] }, restore},
		"re-plugged, alias first": {func(w *world) { w.remove(2) }, func(w *world) { w.eth(12, "eth0").addr(12, "192.168.100.2/24") }, func(w *world) { w.addr(12, "203.0.113.7/24").via(12, "203.0.113.1", 100).arp(12, "203.0.113.1", 1, 2) }},
	} {
		tr, w := NewTracker(healthy()), cable()
		tr.Update(t0, w.Facts)
		s, _ := tr.Update(t0, w.Facts)
		for i, step := range steps {
			step(w)
			if s, _ = tr.Update(t0, w.Facts); s.ByID(0).Generation != 1 {
				t.Errorf("%s: generation %d after step %d", name, s.ByID(0).Generation, i)
			}
		}
		if u := s.ByID(0); u.State != Up || u.Gateway != addr("203.0.113.1") || !slices.Contains(u.Addresses, addr("203.0.113.7")) {
			t.Errorf("%s: %+v", name, u)
		}
	}
	tr, w := NewTracker(healthy()), cable()
	tr.Update(t0, w.Facts)
	dropPublic(w)
	tr.Update(t0, w.Facts)
	w.addr(2, "203.0.113.8/24").via(2, "203.0.113.1", 100)
	if s, _ := tr.Update(t0, w.Facts); s.ByID(0).Generation != 2 {
		t.Errorf("another address: generation %d", s.ByID(0).Generation)
	}
}
