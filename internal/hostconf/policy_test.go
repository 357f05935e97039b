package hostconf

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"tapgw/uplinks"
)

// office is a host with one uplink and candidates for a LAN.
func office() Wanted {
	addr := func(index int, prefix string) uplinks.Address {
		return uplinks.Address{Index: index, Prefix: netip.MustParsePrefix(prefix)}
	}
	host := func(index int, addr string, state int) uplinks.Neighbour {
		return uplinks.Neighbour{Index: index, Addr: netip.MustParseAddr(addr), State: state}
	}
	const reachable, stale, failed, permanent = 0x02, 0x04, 0x20, 0x80
	return Wanted{
		TAP: "tapgw0", Upcall: "tapgw0u", Uplinks: []string{"wan0"},
		Facts: uplinks.Facts{
			Links: []uplinks.Link{
				{Index: 1, Name: "lo", Up: true, Loopback: true}, {Index: 2, Name: "wan0", Up: true},
				{Index: 3, Name: "tapgw0", Up: true}, {Index: 4, Name: "lan0", Up: true}, {Index: 5, Name: "down0"},
				{Index: 6, Name: "bare0", Up: true}, {Index: 7, Name: "ptp0", Up: true}, {Index: 8, Name: "empty0", Up: true},
				{Index: 9, Name: "br0", Up: true}, {Index: 10, Name: "far0", Up: true},
			},
			Addresses: []uplinks.Address{
				addr(1, "127.0.0.1/8"), addr(2, "192.0.2.1/24"), addr(3, "198.18.73.1/30"), addr(4, "192.168.1.1/24"),
				addr(5, "192.168.2.1/24"), addr(7, "192.168.3.1/31"), addr(8, "192.168.4.1/24"), addr(9, "10.0.0.1/8"), addr(10, "192.168.5.1/24"),
			},
			Neighbours: []uplinks.Neighbour{
				host(1, "127.0.0.2", reachable), host(2, "192.0.2.2", reachable), host(3, "198.18.73.2", reachable), host(4, "192.168.1.9", stale),
				host(5, "192.168.2.9", stale), host(6, "192.168.9.9", stale), host(7, "192.168.3.0", stale), host(8, "192.168.4.9", failed),
				host(8, "192.168.4.1", stale), host(8, "192.168.4.3", permanent), host(9, "10.200.0.9", reachable), host(10, "192.168.6.9", stale),
			},
		},
	}
}

func TestLANInterfaces(t *testing.T) {
	w := office()
	if got, want := LANInterfaces(w, nil), []string{"br0", "lan0"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	w.Facts.Neighbours = nil
	if got := LANInterfaces(w, nil); got != nil {
		t.Errorf("without neighbours: %v", got)
	}
	if got, want := LANInterfaces(w, []string{"lan0", "gone0"}), []string{"lan0"}; !slices.Equal(got, want) {
		t.Errorf("known before: got %v, want %v", got, want)
	}
	w.Uplinks = []string{"wan0", "lan0"}
	if got := LANInterfaces(w, []string{"lan0"}); got != nil {
		t.Errorf("became an uplink: %v", got)
	}
}

func TestUnusedProviderIsNoLAN(t *testing.T) {
	w := office()
	w.Facts.Routes = []uplinks.Route{
		{Table: uplinks.TableMain, Dst: netip.MustParsePrefix("192.168.0.0/16"), Index: 4},
		{Table: uplinks.TableMain, Dst: netip.MustParsePrefix("0.0.0.0/0"), Index: 9, Metric: 600},
	}
	if got, want := LANInterfaces(w, []string{"br0"}), []string{"lan0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: strangers at a provider that is no uplink would be carried by ours", got, want)
	}
}

func TestSettings(t *testing.T) {
	w := Wanted{TAP: "tap", Uplinks: []string{"wan", "gone"}}
	for _, c := range []struct {
		name string
		lan  []string
		was  map[string]string
		want []setting
	}{
		{"nothing to do", nil, map[string]string{"all/rp_filter": "0", "tap/rp_filter": "0", "wan/rp_filter": "0"}, nil},
		{"loose for all", nil, map[string]string{"all/rp_filter": "2", "tap/rp_filter": "1", "wan/rp_filter": "1"}, nil},
		{"strict for all", nil, map[string]string{"all/rp_filter": "1", "tap/rp_filter": "0", "wan/rp_filter": "2"}, []setting{{"tap/rp_filter", "2"}}},
		{"strict for one", nil, map[string]string{"all/rp_filter": "0", "tap/rp_filter": "0", "wan/rp_filter": "1"}, []setting{{"wan/rp_filter", "2"}}},
		{"laptop", nil, map[string]string{"all/forwarding": "0", "tap/forwarding": "0", "wan/forwarding": "0"}, nil},
		{"LAN", []string{"lan"}, map[string]string{"all/forwarding": "0", "tap/forwarding": "0", "lan/forwarding": "0", "wan/forwarding": "0"},
			[]setting{{"tap/forwarding", "1"}, {"wan/forwarding", "1"}, {"lan/forwarding", "1"}}},
		{"LAN that turns", []string{"lan"}, map[string]string{"tap/accept_local": "0", "wan/accept_local": "0"}, []setting{{"tap/accept_local", "1"}}},
		{"turned already", []string{"lan"}, map[string]string{"tap/accept_local": "1"}, nil},
		{"nobody to turn", nil, map[string]string{"tap/accept_local": "0"}, nil},
		{"partly on", []string{"lan"}, map[string]string{"all/forwarding": "0", "tap/forwarding": "0", "lan/forwarding": "1", "wan/forwarding": "1"},
			[]setting{{"tap/forwarding", "1"}}},
		{"router", []string{"lan"}, map[string]string{"all/forwarding": "1", "tap/forwarding": "1", "lan/forwarding": "1", "wan/forwarding": "1"}, nil},
		{"router with an exception", []string{"lan"}, map[string]string{"all/forwarding": "1", "tap/forwarding": "0", "wan/forwarding": "0"},
			[]setting{{"tap/forwarding", "1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []setting
			for _, s := range c.want {
				want = append(want, setting{confDir + "/" + s.path, s.value})
			}
			got := settings(w, c.lan, func(path string) (string, bool) {
				value, ok := c.was[path[len(confDir)+1:]]
				return value, ok
			})
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
