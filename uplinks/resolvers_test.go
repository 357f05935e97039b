package uplinks

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// TestOwnResolvers: what the configuration names comes first and counts as it is; of what was found out, those of everybody do not.
func TestOwnResolvers(t *testing.T) {
	addrs := func(texts ...string) []netip.Addr { return addresses(texts...) }
	for name, c := range map[string]struct {
		configured, learned []netip.Addr
		family              Family
		want                []netip.Addr
	}{
		"learned":        {nil, addrs("192.0.2.53", "8.8.8.8", "2001:db8::53", "192.0.2.53"), IPv4, addrs("192.0.2.53")},
		"learned, IPv6":  {nil, addrs("192.0.2.53", "2001:db8::53", "2606:4700:4700::1111", "fe80::1"), IPv6, addrs("2001:db8::53")},
		"configured":     {addrs("8.8.8.8"), addrs("192.0.2.53"), IPv4, addrs("8.8.8.8")},
		"of nobody":      {nil, addrs("127.0.0.53", "0.0.0.0", "224.0.0.251"), IPv4, nil},
		"of a modem":     {nil, addrs("192.168.1.1"), IPv4, addrs("192.168.1.1")},
		"none":           {nil, nil, IPv4, nil},
		"other families": {addrs("2001:db8::53"), addrs("192.0.2.53"), IPv4, nil},
	} {
		if got := ownResolvers(c.configured, c.learned, c.family); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var many []netip.Addr
	for i := range 2 * maxResolvers {
		many = append(many, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)))
	}
	if got := ownResolvers(nil, many, IPv4); len(got) != maxResolvers {
		t.Errorf("%d of %d", len(got), len(many))
	}
}
