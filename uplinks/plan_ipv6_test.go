package uplinks

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

var tapV6 = Capture{TapIndex: 9, TapAddress: tap.TapAddress, TapGateway: tap.TapGateway,
	TapAddressV6: addr("2001:db8:1::abcd"), TapGatewayV6: addr("fe80::7467")}

// viaV6 adds a default route of IPv6; gw "" means on-link.
func (w *world) viaV6(index int, gw string, metric int) *world {
	r := Route{Table: TableMain, Dst: everywhereV6, Index: index, Metric: metric, Protocol: 9}
	if gw != "" {
		r.Gateway = addr(gw)
	}
	w.V6.Routes = append(w.V6.Routes, r)
	return w
}

// captures are the default routes by the TAP that are wanted.
func captures(w Wanted) (v4, v6 []Route) {
	for _, r := range w.Routes {
		switch {
		case r.Index == tapV6.TapIndex && r.Dst == everywhere:
			v4 = append(v4, r)
		case r.Index == tapV6.TapIndex:
			v6 = append(v6, r)
		}
	}
	return v4, v6
}

func TestCaptureOfIPv6(t *testing.T) {
	tests := map[string]struct {
		world  *world
		metric int
		demote []int // from, to, from, to ...
	}{
		"usual":              {dual(), 75, nil},
		"one lower":          {dual().viaV6(2, "fe80::1", 50), 49, nil},
		"one is demoted":     {dual().viaV6(2, "fe80::1", 1), 75, []int{1, 76}},
		"vpn stays in front": {dual().p2p(5, "wg0", "wireguard").viaV6(5, "", 50), 75, nil},
		"vpn without metric": {dual().p2p(5, "wg0", "wireguard").viaV6(5, "", 1024), 75, nil},
		"IPv4 apart":         {dual().via(2, "192.168.1.1", 50), 75, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := planOf(tt.world, tapV6)
			v4, v6 := captures(w)
			want := Route{Table: TableMain, Dst: everywhereV6, Gateway: tapV6.TapGatewayV6, Index: 9, Metric: tt.metric, Protocol: Protocol}
			if len(v4) != 1 || !slices.Equal(v6, []Route{want}) {
				t.Errorf("captures %+v and %+v, expected %+v", v4, v6, want)
			}
			var demote []int
			for _, d := range w.Demote {
				demote = append(demote, d.Route.Metric, d.Metric)
			}
			if !reflect.DeepEqual(demote, tt.demote) {
				t.Errorf("demotes %v, want %v", demote, tt.demote)
			}
		})
	}
}

// TestIPv6IsNotCaptured where nobody would carry it; that of IPv4 is as ever.
func TestIPv6IsNotCaptured(t *testing.T) {
	noRouter := dual()
	noRouter.V6.Routes = nil
	for name, c := range map[string]struct {
		world   *world
		capture Capture
	}{
		"no address on the TAP": {dual(), tap},
		"no uplink has IPv6":    {twoISPs(), tapV6},
		"no router":             {noRouter, tapV6},
	} {
		w := planOf(c.world, c.capture)
		if v4, v6 := captures(w); len(v4) != 1 || len(v6) > 0 {
			t.Errorf("%s: captures %+v and %+v", name, v4, v6)
		}
		if name == "no uplink has IPv6" && !reflect.DeepEqual(w, planOf(c.world, tap)) {
			t.Errorf("%s: another plan than without: %+v", name, w)
		}
	}
}

// TestRulesOfIPv6OnlyWhereNeeded is TestRulesOnlyWhereNeeded for IPv6, which is steered only while it is captured.
func TestRulesOfIPv6OnlyWhereNeeded(t *testing.T) {
	steered := tapV6
	steered.Steered = true
	notCaptured := steered
	notCaptured.TapAddressV6 = netip.Addr{}
	for name, c := range map[string]struct {
		world   *world
		capture Capture
		rules   bool
	}{
		"steered": {dual(), steered, false}, "not steered": {dual(), tapV6, true}, "not captured": {dual(), notCaptured, true},
	} {
		got := planOf(c.world, c.capture)
		if any := slices.ContainsFunc(got.Rules, func(r Rule) bool { return r.Source.Addr().Is6() }); any != c.rules {
			t.Errorf("%s: rules %+v", name, got.Rules)
		}
	}
}
