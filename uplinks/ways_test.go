package uplinks

import (
	"net/netip"
	"reflect"
	"testing"

	"tapgw/internal/packet"
)

func way(dst string, index, metric int, gateway string) Route {
	r := Route{Dst: netip.MustParsePrefix(dst), Index: index, Metric: metric}
	if gateway != "" {
		r.Gateway = netip.MustParseAddr(gateway)
	}
	return r
}

func TestWays(t *testing.T) {
	const lan, vpn, wan, guests = 3, 4, 5, 6
	routes := []Route{
		way("0.0.0.0/0", wan, 100, "192.0.2.1"), way("10.0.0.0/24", lan, 0, ""), way("10.0.0.66/32", vpn, 0, ""),
		way("10.1.0.0/16", lan, 0, "10.0.0.9"), way("10.1.2.0/24", lan, 50, "10.0.0.8"), way("10.1.2.0/24", vpn, 20, ""),
		way("10.2.0.0/16", lan, 0, "10.0.0.8"), way("10.2.0.0/16", guests, 0, "10.9.0.8"), way("10.9.0.0/24", guests, 0, ""),
	}
	addresses := []Address{{Index: lan, Prefix: netip.MustParsePrefix("10.0.0.1/24")}, {Index: wan, Prefix: netip.MustParsePrefix("192.0.2.7/24")}}
	w := FindWays(Facts{Routes: routes, Addresses: addresses}, []int{lan, guests})
	for inside, want := range map[string]Hop{
		"10.0.0.2": {Index: lan}, "10.0.0.66": {}, "10.0.0.1": {}, "10.1.9.9": {lan, netip.MustParseAddr("10.0.0.9")}, "10.1.2.3": {},
		"10.2.0.1": {}, "10.9.0.7": {Index: guests}, "192.168.0.1": {}, "8.8.8.8": {},
	} {
		got := Hop{}
		if n := w.Hop(packet.AddrOf(netip.MustParseAddr(inside))); n > 0 {
			got = w.Hops[n-1]
		}
		if got != want {
			t.Errorf("%s goes by %+v, want %+v", inside, got, want)
		}
	}
	if again := FindWays(Facts{Routes: routes, Addresses: addresses}, []int{guests, lan}); !again.Equal(w) {
		t.Errorf("the same routes give %+v and %+v", w, again)
	}
	if other := FindWays(Facts{Routes: routes[:2]}, []int{lan}); other.Equal(w) {
		t.Error("different ways are equal")
	}
}

// TestWaysOfIPv6: as those of IPv4. Link-local addresses come and go on every link, and change nothing.
func TestWaysOfIPv6(t *testing.T) {
	const lan, guests = 3, 6
	f := Facts{}
	f.V6.Routes = []Route{
		way("::/0", 5, 1024, "fe80::1"), way("fd00:10::/64", lan, 0, ""), way("fd00:11::/48", lan, 0, "fe80::9"),
		way("fd00:11:0:8000::/49", guests, 0, ""), way("fd00:10::66/128", 4, 0, ""),
	}
	f.V6.Addresses = []Address{{Index: lan, Prefix: netip.MustParsePrefix("fd00:10::1/64")}}
	w := FindWays(f.Of(IPv6), []int{lan, guests})
	for inside, want := range map[string]Hop{
		"fd00:10::2": {Index: lan}, "fd00:10::66": {}, "fd00:10::1": {}, "fd00:11::1": {lan, netip.MustParseAddr("fe80::9")},
		"fd00:11:0:7fff::1": {lan, netip.MustParseAddr("fe80::9")}, "fd00:11:0:8000::1": {Index: guests}, "fd00:12::1": {}, "10.0.0.1": {},
	} {
		got := Hop{}
		if n := w.Hop(packet.AddrOf(netip.MustParseAddr(inside))); n > 0 {
			got = w.Hops[n-1]
		}
		if got != want {
			t.Errorf("%s goes by %+v, want %+v", inside, got, want)
		}
	}
	f.V6.Routes = append(f.V6.Routes, way("fe80::/64", lan, 256, ""))
	f.V6.Addresses = append(f.V6.Addresses, Address{Index: lan, Prefix: netip.MustParsePrefix("fe80::5/64")})
	if again := FindWays(f.Of(IPv6), []int{lan, guests}); !again.Equal(w) {
		t.Errorf("with link-local addresses %+v, want %+v", again, w)
	}
}

// TestWaysThatLeadNowhere: what the host's routing refuses within the LAN is left to it, unless a better route precedes.
func TestWaysThatLeadNowhere(t *testing.T) {
	const lan, nowhere = 3, 0
	w := FindWays(Facts{Routes: []Route{
		way("10.0.0.0/24", lan, 0, ""), way("10.0.0.64/28", nowhere, 0, ""), way("10.0.0.70/32", lan, 5, ""),
		way("10.0.0.128/28", nowhere, 20, ""), way("10.0.0.128/28", lan, 10, "10.0.0.9"),
		way("10.0.0.192/28", nowhere, 10, ""), way("10.0.0.192/28", lan, 20, ""),
		way("10.0.0.0/16", nowhere, 0, ""), way("0.0.0.0/0", nowhere, 0, ""),
	}}, []int{lan})
	for inside, want := range map[string]Hop{
		"10.0.0.2": {Index: lan}, "10.0.0.65": {}, "10.0.0.70": {Index: lan}, "10.0.0.130": {lan, addr("10.0.0.9")},
		"10.0.0.193": {}, "10.0.9.9": {},
	} {
		got := Hop{}
		if n := w.Hop(packet.AddrOf(addr(inside))); n > 0 {
			got = w.Hops[n-1]
		}
		if got != want {
			t.Errorf("%s goes by %+v, want %+v", inside, got, want)
		}
	}
}

// TestRefusedDefault: a default route that leads nowhere is no uplink, and ours need not precede it.
func TestRefusedDefault(t *testing.T) {
	want := planOf(twoISPs(), tap)
	if got := planOf(twoISPs().via(0, "", 0), tap); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestManyHops(t *testing.T) {
	var routes []Route
	for i := range 2 * maxHops {
		b := [4]byte{172, 16, byte(i / 64), byte(i % 64 * 4)}
		routes = append(routes, Route{Dst: netip.PrefixFrom(netip.AddrFrom4(b), 30), Index: i + 1, Metric: 0})
	}
	links := make([]int, len(routes))
	for i := range links {
		links[i] = i + 1
	}
	w := FindWays(Facts{Routes: routes}, links)
	if len(w.Hops) != maxHops {
		t.Errorf("%d hops, want %d", len(w.Hops), maxHops)
	}
	if n := w.Hop(packet.AddrOf(routes[len(routes)-1].Dst.Addr())); n != 0 {
		t.Errorf("a hop beyond the possible number is %d, want 0", n)
	}
}
