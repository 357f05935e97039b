package uplinks

import (
	"math"
	"net/netip"
	"slices"
	"testing"
)

// reaching is an uplink that has IPv6 by a router.
func reaching(id uint8, state State, addresses ...string) *Uplink {
	u := &Uplink{ID: id, Index: int(id) + 2, V6: Side{State: state, Gateway: addr("fe80::1")}}
	for _, a := range addresses {
		u.V6.Addresses = append(u.V6.Addresses, addr(a))
	}
	return u
}

func countUp() func() uint64 {
	n := uint64(0x1000)
	return func() uint64 { n += 0x10; return n }
}

func TestTapAddress(t *testing.T) {
	noRouter, gone := reaching(0, Up, "2001:db8:1::2"), reaching(0, Up, "2001:db8:1::2")
	noRouter.V6.Gateway, gone.Index = netip.Addr{}, 0
	ppp := reaching(0, Up, "2001:db8:7::2")
	ppp.HeaderLess, ppp.V6.Gateway = true, netip.Addr{}
	for _, c := range []struct {
		name    string
		uplinks []*Uplink
		want    string // its prefix, or none
	}{
		{"no uplink", nil, ""},
		{"no IPv6", []*Uplink{{ID: 0, Index: 2}}, ""},
		{"no router", []*Uplink{noRouter}, ""},
		{"no device", []*Uplink{gone}, ""},
		{"one", []*Uplink{reaching(0, Probing, "2001:db8:1::2")}, "2001:db8:1::/64"},
		{"point to point", []*Uplink{ppp}, "2001:db8:7::/64"},
		{"usable first", []*Uplink{reaching(0, Down, "2001:db8:1::2"), reaching(1, Up, "2001:db8:2::2")}, "2001:db8:2::/64"},
		{"local", []*Uplink{reaching(0, Up, "fd00:1::2")}, "fd00:1::/64"},
		{"global before local", []*Uplink{reaching(0, Up, "fd00:1::2"), reaching(1, Down, "2001:db8:2::2")}, "2001:db8:2::/64"},
	} {
		got := TapAddresses{}.Follow(NewSnapshot(c.uplinks), Facts{}, countUp())
		if c.want == "" {
			if got.Current.IsValid() {
				t.Errorf("%s: %v", c.name, got)
			}
			continue
		}
		if !pfx(c.want).Contains(got.Current) || slices.Contains(c.uplinks[0].V6.Addresses, got.Current) || len(got.Earlier) > 0 {
			t.Errorf("%s: %v, expected one in %s", c.name, got, c.want)
		}
	}
}

// TestTapAddressLasts: it stays while its prefix does, whatever else changes, and comes back with its prefix.
func TestTapAddressLasts(t *testing.T) {
	random := countUp()
	one, two := reaching(0, Up, "2001:db8:1::2"), reaching(1, Up, "2001:db8:2::2")
	follow := func(before TapAddresses, list ...*Uplink) TapAddresses {
		return before.Follow(NewSnapshot(list), Facts{}, random)
	}
	first := follow(TapAddresses{}, one, two)
	for what, list := range map[string][]*Uplink{
		"the uplink is down":    {reaching(0, Down, "2001:db8:1::2"), two},
		"its address changes":   {reaching(0, Up, "2001:db8:1::9"), two},
		"others come before it": {reaching(0, Up, "2001:db8:9::9", "2001:db8:1::2"), two},
		"it moves":              {two, reaching(2, Up, "2001:db8:1::2")},
	} {
		if got := follow(first, list...); got.Current != first.Current || len(got.Earlier) > 0 {
			t.Errorf("%s: %v, before %v", what, got, first)
		}
	}
	second := follow(first, two)
	if !pfx("2001:db8:2::/64").Contains(second.Current) || !slices.Equal(second.Earlier, []netip.Addr{first.Current}) {
		t.Fatalf("%v after %v", second, first)
	}
	none := follow(second)
	if none.Current.IsValid() || !slices.Equal(none.Earlier, []netip.Addr{second.Current, first.Current}) {
		t.Fatalf("without IPv6: %v after %v", none, second)
	}
	if again := follow(none); !slices.Equal(again.Earlier, none.Earlier) || again.Current.IsValid() {
		t.Errorf("still without IPv6: %v after %v", again, none)
	}
	if back := follow(none, one); back.Current != first.Current || !slices.Equal(back.Earlier, []netip.Addr{second.Current}) {
		t.Errorf("the prefix came back: %v after %v", back, none)
	}
	local := follow(TapAddresses{}, reaching(0, Up, "fd00:1::2"))
	if got := follow(local, reaching(0, Up, "fd00:1::2"), one); got.Current == local.Current {
		t.Errorf("still %v where there is a global prefix", got)
	}
}

func TestEarlierTapAddressesAreBounded(t *testing.T) {
	random, current, all := countUp(), TapAddresses{}, []netip.Addr(nil)
	for i := range 10 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 5: byte(i), 15: 2})
		current = current.Follow(NewSnapshot([]*Uplink{reaching(0, Up, a.String())}), Facts{}, random)
		all = append([]netip.Addr{current.Current}, all...)
		if want := all[1:min(len(all), 1+maxEarlier)]; !slices.Equal(current.Earlier, want) {
			t.Fatalf("earlier ones are %v, expected %v", current.Earlier, want)
		}
	}
}

// TestTapAddressIsNobodyElses, nor is the one that errors come from.
func TestTapAddressIsNobodyElses(t *testing.T) {
	const id = 0x1010 // the first of countUp
	at := func(id uint64) netip.Addr { return withInterfaceID(pfx("2001:db8:1::/64"), id) }
	s := NewSnapshot([]*Uplink{reaching(0, Up, "2001:db8:1::2", at(id+4).String())})
	f := Facts{V6: FactsV6{
		Addresses:  []Address{{Index: 9, Prefix: netip.PrefixFrom(at(id), 64)}},
		Neighbours: []Neighbour{{Index: 2, Addr: at(id + 3)}},
		Routes:     []Route{{Gateway: at(id + 7)}},
	}}
	if got := (TapAddresses{}).Follow(s, f, countUp()).Current; got != at(id+8) {
		t.Errorf("got %s, expected %s", got, at(id+8))
	}
	for _, id := range []uint64{0, 1, math.MaxUint64, 0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff} {
		got := (TapAddresses{}).Follow(s, Facts{}, func() uint64 { return id }).Current
		if b := got.As16(); reservedInterfaceID(uint64(b[15])) && b[14] == 0 && b[8] == 0 || !pfx("2001:db8:1::/64").Contains(got) {
			t.Errorf("identifier %x made %s", id, got)
		}
	}
}
