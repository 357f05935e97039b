package uplinks

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// dual gives the first of two ISPs IPv6 as its router advertises it: a lasting address, a temporary one, and one of RFC 4193.
func dual() *world {
	w := twoISPs()
	w.V6 = FactsV6{
		Addresses: []Address{
			{Index: 2, Prefix: pfx("2001:db8:1::77/64"), Passing: true}, {Index: 2, Prefix: pfx("fd00::2/64")},
			{Index: 2, Prefix: pfx("2001:db8:1::2/64")},
		},
		Routes:     []Route{{Table: TableMain, Dst: everywhereV6, Gateway: addr("fe80::1"), Index: 2, Metric: 1024, Protocol: 9}},
		Neighbours: []Neighbour{{Index: 2, Addr: addr("fe80::1"), MAC: [6]byte{2, 6}, State: 2}},
	}
	return w
}

var fine = Health{Known: true, Usable: true}

// TestSidesAreIndependent: either family of an uplink has its own health, addresses and generation.
func TestSidesAreIndependent(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{}), dual()
	look := func() (*Uplink, []Event) {
		s, events := tr.Update(t0, w.Facts)
		return s.ByID(0), events
	}
	expect := func(when string, v4, v6 State) *Uplink {
		t.Helper()
		u, _ := look()
		if u.State != v4 || u.V6.State != v6 {
			t.Errorf("%s: IPv4 %s, IPv6 %s", when, u.State, u.V6.State)
		}
		return u
	}
	expect("at first", Probing, Probing)
	for f, want := range []State{Up, Up} {
		if err := tr.SetHealth(0, Family(f), fine); err != nil {
			t.Fatal(err)
		}
		if u, _ := look(); u.On(Family(f)).State != want {
			t.Errorf("side %d is %s", f, u.On(Family(f)).State)
		}
	}
	_ = tr.SetHealth(0, IPv6, Health{Known: true, Reason: "no reply"})
	before := expect("IPv6 is silent", Up, Down)
	w.V6.Addresses[2].Prefix = pfx("2001:db8:9::2/64")
	after := expect("renumbered", Up, Probing)
	if after.Generation != before.Generation || after.V6.Generation == before.V6.Generation {
		t.Errorf("generations %d %d, before %d %d", after.Generation, after.V6.Generation, before.Generation, before.V6.Generation)
	}
	w.V6.Routes = nil
	if u := expect("no more router", Up, Probing); u.V6.Gateway != addr("fe80::1") {
		t.Errorf("gateway %s", u.V6.Gateway)
	}
	w.V6.Addresses = nil
	u, events := look()
	if u.V6.State != Down || u.V6.Reason != "no IPv6 address" || len(events) != 1 || events[0].Family != IPv6 || events[0].Kind != StateChanged {
		t.Errorf("%s %q, %+v", u.V6.State, u.V6.Reason, events)
	}
}

// TestWithoutIPv6: nothing is told of a family that an uplink has never had.
func TestWithoutIPv6(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{}), dual()
	s, events := tr.Update(t0, w.Facts)
	if s.ByID(1).V6.State != "" || s.ByID(1).V6.Reason != "" {
		t.Errorf("second uplink: %+v", s.ByID(1).V6)
	}
	for _, e := range events {
		if e.ID == 1 && e.Family == IPv6 {
			t.Errorf("%+v", e)
		}
	}
}

// TestIPv6Alone: a device with nothing but IPv6 is an uplink.
func TestIPv6Alone(t *testing.T) {
	w := dual()
	w.Addresses, w.Routes = w.Addresses[1:], w.Routes[1:]
	tr := NewTracker(TrackerConfig{})
	tr.Update(t0, w.Facts)
	_ = tr.SetHealth(0, IPv6, fine)
	s, _ := tr.Update(t0.Add(time.Second), w.Facts)
	i := slices.IndexFunc(s.Uplinks, func(u *Uplink) bool { return u.Index == 2 })
	if i < 0 {
		t.Fatal("no uplink")
	}
	if u := s.Uplinks[i]; u.State != Down || u.Reason != "no address" || u.Ready() || !u.ReadyFor(IPv6) {
		t.Errorf("%+v", u)
	}
}

// TestOutsideIPv6: sessions are translated to lasting public addresses, to local ones only where there are no others.
func TestOutsideIPv6(t *testing.T) {
	w := dual()
	pool := func() []netip.Addr { return newView(w.Of(IPv6)).pool(2) }
	if got := pool(); !slices.Equal(got, []netip.Addr{addr("2001:db8:1::2")}) {
		t.Errorf("pool %s", got)
	}
	w.V6.Addresses = w.V6.Addresses[:2]
	if got := pool(); !slices.Equal(got, []netip.Addr{addr("fd00::2")}) {
		t.Errorf("pool without public addresses %s", got)
	}
}

// TestPlanIPv6: every address of the uplink leaves by it, also one that no session is translated to.
func TestPlanIPv6(t *testing.T) {
	got := planOf(dual(), tap)
	var rules []Rule
	for _, r := range got.Rules {
		if r.Source.Addr().Is6() {
			rules = append(rules, r)
		}
	}
	want := []Rule{{Priority: SuppressRule, Source: everywhereV6, Table: TableMain, SuppressDefault: true}}
	for _, a := range []string{"2001:db8:1::77/128", "fd00::2/128", "2001:db8:1::2/128"} {
		want = append(want, Rule{Priority: RuleBase, Source: pfx(a), Table: TableBase})
	}
	if !reflect.DeepEqual(rules, want) {
		t.Errorf("rules %+v", rules)
	}
	exit := Route{Table: TableBase, Dst: everywhereV6, Gateway: addr("fe80::1"), Index: 2, Metric: metricV6, Protocol: Protocol}
	subnet := Route{Table: TableBase, Dst: pfx("2001:db8:1::/64"), Index: 2, Metric: metricV6, Protocol: Protocol}
	if !slices.Contains(got.Routes, exit) || !slices.Contains(got.Routes, subnet) {
		t.Errorf("routes %+v", got.Routes)
	}
}

// TestDeprecatedAddressKeepsItsSessions until the device has it no more; new ones use the other, and stay.
func TestDeprecatedAddressKeepsItsSessions(t *testing.T) {
	tr, w := NewTracker(TrackerConfig{AssumeHealthyV6: true}), dual()
	look := func() *Uplink {
		s, _ := tr.Update(t0, w.Facts)
		return s.ByID(0)
	}
	w.V6.Addresses = slices.Delete(w.V6.Addresses, 1, 2)
	before := look()
	w.V6.Addresses[1].Passing, w.V6.Addresses[1].Deprecated = true, true
	if u := look(); !reflect.DeepEqual(u, before) {
		t.Errorf("deprecated while there is no other: %+v, before %+v", u.V6, before.V6)
	}
	w.V6.Addresses = append(w.V6.Addresses, Address{Index: 2, Prefix: pfx("2001:db8:9::2/64")})
	old, next := addr("2001:db8:1::2"), addr("2001:db8:9::2")
	for range 2 {
		u := look()
		if u.V6.Generation != before.V6.Generation || !slices.Equal(u.V6.Addresses, []netip.Addr{next, old}) ||
			!slices.Equal(u.V6.Retired, []netip.Addr{old}) || !reflect.DeepEqual(u.V6.Pool(), u.V6.Shared()[:1]) || len(u.V6.Shared()) != 2 {
			t.Errorf("deprecated: %+v, before %+v", u.V6, before.V6)
		}
	}
	w.V6.Addresses = slices.Delete(w.V6.Addresses, 1, 2)
	if u := look(); u.V6.Generation != before.V6.Generation || u.V6.State != Up || !slices.Equal(u.V6.Addresses, []netip.Addr{next}) {
		t.Errorf("gone, and sessions at the other do not go on: %+v", u.V6)
	}
	w.V6.Addresses[len(w.V6.Addresses)-1].Prefix = pfx("2001:db8:a::2/64")
	if u := look(); u.V6.Generation == before.V6.Generation {
		t.Errorf("taken away at once: %+v", u.V6)
	}
}
