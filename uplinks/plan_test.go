package uplinks

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var tap = Capture{TapIndex: 9, TapAddress: addr("198.18.73.1"), TapGateway: addr("198.18.73.2")}

func planOf(w *world, c Capture) Wanted {
	s, _ := NewTracker(healthy()).Update(t0, w.Facts)
	return Plan(s, w.Facts, c)
}

func TestPlanOfTwoUplinks(t *testing.T) {
	got := planOf(twoISPs(), tap)
	gw := addr("192.168.1.1")
	want := Wanted{
		Rules: []Rule{
			{Priority: 5099, Source: everywhere, Table: 254, SuppressDefault: true},
			{Priority: 5100, Source: pfx("192.168.1.10/32"), Table: 7300},
			{Priority: 5101, Source: pfx("192.168.1.20/32"), Table: 7301},
		},
		Routes: []Route{
			{Table: 7300, Dst: pfx("192.168.1.0/24"), Index: 2, Protocol: 73},
			{Table: 7300, Dst: everywhere, Gateway: gw, Index: 2, Protocol: 73},
			{Table: 7301, Dst: pfx("192.168.1.0/24"), Index: 3, Protocol: 73},
			{Table: 7301, Dst: everywhere, Gateway: gw, Index: 3, Protocol: 73},
			{Table: 254, Dst: multicast, Index: 2, Metric: 75, Protocol: 73},
			{Table: 254, Dst: limitedBroadcast, Index: 2, Metric: 75, Protocol: 73},
			{Table: 254, Dst: everywhere, Gateway: tap.TapGateway, Source: tap.TapAddress, Index: 9, Metric: 75, Protocol: 73},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func TestNothingIsCapturedWithoutTapOrUplink(t *testing.T) {
	for name, w := range map[string]Wanted{
		"no tap":    planOf(twoISPs().via(2, "192.168.1.1", 0), Capture{}),
		"no uplink": planOf(new(world).eth(2, "lan").addr(2, "10.0.0.1/8"), tap),
	} {
		if len(w.Demote) > 0 {
			t.Errorf("%s: demotes %v", name, w.Demote)
		}
		for _, r := range w.Routes {
			if r.Table == TableMain {
				t.Errorf("%s: wants %v", name, r)
			}
		}
	}
}

func TestCaptureMetric(t *testing.T) {
	tests := map[string]struct {
		world  *world
		metric int
		demote []int // from, to, from, to ...
	}{
		"usual":                {twoISPs(), 75, nil},
		"one lower":            {twoISPs().via(2, "192.168.1.1", 50), 49, nil},
		"equal":                {twoISPs().via(2, "192.168.1.1", 75), 74, nil},
		"two leaves one":       {twoISPs().via(2, "192.168.1.1", 2), 1, nil},
		"zero is demoted":      {twoISPs().via(2, "192.168.1.1", 0), 75, []int{0, 76}},
		"one is demoted":       {twoISPs().via(2, "192.168.1.1", 1), 75, []int{1, 76}},
		"two zeros":            {twoISPs().via(2, "192.168.1.1", 0).via(3, "192.168.1.1", 0).via(3, "192.168.1.1", 76), 75, []int{0, 77, 0, 78}},
		"vpn stays in front":   {twoISPs().p2p(5, "wg0", "wireguard").via(5, "", 0), 75, nil},
		"vpn's metric avoided": {twoISPs().via(2, "192.168.1.1", 75).p2p(5, "wg0", "wireguard").via(5, "", 74), 73, nil},
		"demoted stays put":    {new(world).eth(2, "eth0").addr(2, "10.0.0.2/24").via(2, "10.0.0.1", 76), 75, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := planOf(tt.world, tap)
			if got := w.Routes[len(w.Routes)-1]; got.Metric != tt.metric || got.Index != tap.TapIndex {
				t.Errorf("last route %+v, want metric %d", got, tt.metric)
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

func TestOddUplinks(t *testing.T) {
	w := new(world).
		eth(2, "eth0").addr(2, "203.0.113.7/32").via(2, "10.99.0.1", 100). // gateway outside any subnet
		p2p(4, "ppp0", "ppp").via(4, "", 300).
		eth(5, "off").addr(5, "10.5.0.2/24").addr(5, "10.5.0.3/24").via(5, "10.5.0.1", 400)
	w.Addresses = append(w.Addresses, Address{Index: 4, Prefix: pfx("198.51.100.2/32"), Peer: addr("198.51.100.1")})
	w.link(5).Up = false
	got := planOf(w, Capture{})
	routes := []Route{
		{Table: 7300, Dst: everywhere, Gateway: addr("10.99.0.1"), Index: 2, Protocol: 73, OnLink: true},
		{Table: 7301, Dst: pfx("198.51.100.1/32"), Index: 4, Protocol: 73},
		{Table: 7301, Dst: everywhere, Index: 4, Protocol: 73},
	}
	if !reflect.DeepEqual(got.Routes, routes) {
		t.Errorf("routes %+v", got.Routes)
	}
	var sources []netip.Prefix
	for _, r := range got.Rules[1:] {
		sources = append(sources, r.Source)
	}
	if want := []netip.Prefix{pfx("203.0.113.7/32"), pfx("198.51.100.2/32"), pfx("10.5.0.2/32"), pfx("10.5.0.3/32")}; !reflect.DeepEqual(sources, want) {
		t.Errorf("rules from %v, want %v", sources, want)
	}
}

func TestForeignMulticastRouteIsLeftAlone(t *testing.T) {
	w := twoISPs()
	w.Routes = append(w.Routes, Route{Table: TableMain, Dst: multicast, Index: 3})
	for _, r := range planOf(w, tap).Routes {
		if r.Dst == multicast {
			t.Fatalf("wants %+v", r)
		}
	}
}

// Every plan names each kernel object once, stays in our ranges, and captures below every uplink's default route.
func TestPlanInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := new(world)
		for i := range rapid.IntRange(0, 6).Draw(t, "links") {
			if rapid.Bool().Draw(t, "eth") {
				w.eth(10+i, string(rune('a'+i)))
			} else {
				w.p2p(10+i, string(rune('a'+i)), rapid.SampledFrom([]string{"ppp", "tun", "wireguard"}).Draw(t, "kind"))
			}
			for range rapid.IntRange(0, 3).Draw(t, "addrs") {
				w.addr(10+i, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "a")}), rapid.IntRange(0, 32).Draw(t, "bits")).String())
			}
			for range rapid.IntRange(0, 2).Draw(t, "defaults") {
				w.via(10+i, rapid.SampledFrom([]string{"", "10.0.0.1", "192.0.2.1"}).Draw(t, "gw"), rapid.IntRange(0, 90).Draw(t, "metric"))
			}
		}
		p := planOf(w, tap)
		rules, keys := map[Rule]bool{}, map[Route]bool{}
		for _, r := range p.Rules {
			if rules[r] || r.Priority < SuppressRule || r.Priority > RuleLast {
				t.Fatalf("rule %+v", r)
			}
			rules[r] = true
		}
		for _, r := range p.Routes {
			key := Route{Table: r.Table, Dst: r.Dst, Metric: r.Metric}
			if keys[key] || r.Protocol != Protocol || r.Index == 0 || r.Dst != r.Dst.Masked() {
				t.Fatalf("route %+v", r)
			}
			keys[key] = true
		}
		if n := len(p.Routes); n > 0 && p.Routes[n-1].Index == tap.TapIndex {
			checkInFront(t, w, p)
		}
	})
}

func checkInFront(t *rapid.T, w *world, p Wanted) {
	metric := p.Routes[len(p.Routes)-1].Metric
	if metric < 1 {
		t.Fatalf("metric %d", metric)
	}
	moved := map[Route]bool{}
	for _, d := range p.Demote {
		moved[d.Route] = true
		if d.Metric <= metric {
			t.Fatalf("demotes to %d, ours is %d", d.Metric, metric)
		}
	}
	for _, r := range w.Routes {
		if l := w.link(r.Index); r.Metric <= metric && !moved[r] && !isTunnel(*l) {
			t.Fatalf("%+v beats ours with metric %d", r, metric)
		}
	}
}

// TestRulesOnlyWhereNeeded: what the TAP steers needs none, unless a bound socket or a neighbour could go astray.
func TestRulesOnlyWhereNeeded(t *testing.T) {
	apart := func() *world {
		return new(world).eth(2, "wan1").eth(3, "wan2").addr(2, "192.0.2.10/24").addr(2, "192.0.2.11/24").addr(3, "198.51.100.20/24").
			arp(2, "192.0.2.1", 1, 0x02).arp(3, "198.51.100.1", 2, 0x02)
	}
	steered := tap
	steered.Steered = true
	for name, c := range map[string]struct {
		world   *world
		capture Capture
		rules   bool
	}{
		"steered":       {apart().via(2, "192.0.2.1", 100).via(3, "198.51.100.1", 200), steered, false},
		"not steered":   {apart().via(2, "192.0.2.1", 100).via(3, "198.51.100.1", 200), tap, true},
		"same subnet":   {twoISPs(), steered, true},
		"others' rules": {ruled(apart().via(2, "192.0.2.1", 100).via(3, "198.51.100.1", 200)), steered, true},
		"VPN in front":  {apart().via(2, "192.0.2.1", 100).via(3, "198.51.100.1", 200).p2p(5, "wg0", "wireguard").via(5, "", 50), steered, true},
		"VPN behind":    {apart().via(2, "192.0.2.1", 100).via(3, "198.51.100.1", 200).p2p(5, "wg0", "wireguard").via(5, "", 300), steered, false},
	} {
		if got := planOf(c.world, c.capture); (len(got.Rules) > 0) != c.rules || len(got.Routes) == 0 {
			t.Errorf("%s: %d rules and %d routes, want rules: %t", name, len(got.Rules), len(got.Routes), c.rules)
		}
	}
	s, f := steeredWithoutDefault(t, apart())
	if got := Plan(s, f, steered); len(got.Rules) == 0 {
		t.Error("no rules where an uplink has no default route")
	}
}

// ruled adds a routing rule of somebody else's.
func ruled(w *world) *world {
	w.Ruled = true
	return w
}

// steeredWithoutDefault is a state in which a named uplink knows its gateway from the configuration alone.
func steeredWithoutDefault(t *testing.T, w *world) (*Snapshot, Facts) {
	t.Helper()
	w.via(2, "192.0.2.1", 100)
	s, _ := NewTracker(TrackerConfig{TapName: "tapgw0", AssumeHealthy: true, Specs: []Spec{
		{Name: "wan1"}, {Name: "wan2", Gateway: addr("198.51.100.1")},
	}}).Update(t0, w.Facts)
	return s, w.Facts
}

// TestQuestionsToDeadLinks: what is asked of a resolver on the link of a dead uplink comes to the TAP, if another uplink has any.
func TestQuestionsToDeadLinks(t *testing.T) {
	w := new(world).eth(2, "wan1").addr(2, "192.0.2.10/24").via(2, "192.0.2.1", 100).arp(2, "192.0.2.1", 1, 0x02).
		eth(3, "wan2").addr(3, "198.51.100.20/24").via(3, "198.51.100.1", 200).arp(3, "198.51.100.1", 2, 0x02)
	onLink, far, other := addr("192.0.2.1"), addr("203.0.113.53"), addr("198.51.100.1")
	for name, c := range map[string]struct {
		resolvers map[int][]netip.Addr
		dead      int
		want      []Rule
	}{
		"dead": {map[int][]netip.Addr{2: {onLink, far}, 3: {other}}, 2, []Rule{
			{Priority: 5098, Source: everywhere, Destination: onLink, Port: 53, Table: 7332},
			{Priority: 5098, Source: everywhere, Destination: onLink, Port: 853, Table: 7332},
		}},
		"none is dead":  {map[int][]netip.Addr{2: {onLink}, 3: {other}}, 0, nil},
		"the only ones": {map[int][]netip.Addr{2: {onLink}}, 2, nil},
	} {
		f := w.Facts
		f.Resolvers = c.resolvers
		s, _ := NewTracker(healthy()).Update(t0, f)
		for _, u := range s.Uplinks {
			if u.Index == c.dead {
				u.State = Down
			}
		}
		got := Plan(s, f, tap)
		rules := slices.DeleteFunc(got.Rules, func(r Rule) bool { return r.Table != ResolverTable })
		routes := slices.DeleteFunc(got.Routes, func(r Route) bool { return r.Table != ResolverTable })
		route := Route{Table: 7332, Dst: everywhere, Gateway: tap.TapGateway, Source: tap.TapAddress, Index: 9, Protocol: 73}
		if !slices.Equal(rules, c.want) || len(routes) != min(1, len(c.want)) || len(routes) == 1 && routes[0] != route {
			t.Errorf("%s: rules %+v, routes %+v", name, rules, routes)
		}
	}
}

// TestPlanInAPause: nothing new is captured and nobody's route moves, while what has an address of the TAP still goes there.
func TestPlanInAPause(t *testing.T) {
	paused := tap
	paused.TapAddressV6, paused.TapGatewayV6 = addr("fd00::1"), addr("fe80::2")
	paused.Only = []netip.Addr{tap.TapAddress, paused.TapAddressV6, addr("fd00::9")}
	got := planOf(twoISPs().via(2, "192.168.1.1", 0), paused)
	inTable := func(r Rule) bool { return r.Table != PauseTable }
	rules := slices.DeleteFunc(slices.Clone(got.Rules), inTable)
	want := []Rule{
		{Priority: 5198, Source: pfx("198.18.73.1/32"), Table: 7333},
		{Priority: 5198, Source: pfx("fd00::1/128"), Table: 7333},
		{Priority: 5198, Source: pfx("fd00::9/128"), Table: 7333},
	}
	routes := slices.DeleteFunc(slices.Clone(got.Routes), func(r Route) bool { return r.Table != PauseTable })
	wantRoutes := []Route{
		{Table: 7333, Dst: everywhere, Gateway: tap.TapGateway, Index: 9, Protocol: 73},
		{Table: 7333, Dst: everywhereV6, Gateway: paused.TapGatewayV6, Index: 9, Metric: 1024, Protocol: 73},
	}
	if !slices.Equal(rules, want) || !slices.Equal(routes, wantRoutes) || len(got.Rules) == len(rules) {
		t.Errorf("rules %+v, routes %+v", got.Rules, got.Routes)
	}
	if len(got.Demote) > 0 || slices.ContainsFunc(got.Routes, func(r Route) bool { return r.Table == TableMain }) {
		t.Errorf("captures: %+v", got)
	}
}
