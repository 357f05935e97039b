package daemon

import (
	"net/netip"
	"testing"

	"tapgw/uplinks"
)

func TestGainedAddresses(t *testing.T) {
	with := func(id uint8, v4, v6 string) *uplinks.Uplink {
		return &uplinks.Uplink{ID: id, Side: uplinks.Side{Addresses: []netip.Addr{netip.MustParseAddr(v4)}},
			V6: uplinks.Side{Addresses: []netip.Addr{netip.MustParseAddr(v6)}}}
	}
	before := uplinks.NewSnapshot([]*uplinks.Uplink{with(1, "192.0.2.1", "2001:db8::1")})
	for name, c := range map[string]struct {
		now  *uplinks.Uplink
		want bool
	}{
		"the same":       {with(1, "192.0.2.1", "2001:db8::1"), false},
		"of IPv4":        {with(1, "192.0.2.2", "2001:db8::1"), true},
		"of IPv6":        {with(1, "192.0.2.1", "2001:db8::2"), true},
		"none":           {&uplinks.Uplink{ID: 1}, false},
		"another uplink": {with(2, "192.0.2.2", "2001:db8::2"), false},
	} {
		if got := gained(before, uplinks.NewSnapshot([]*uplinks.Uplink{c.now})); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
