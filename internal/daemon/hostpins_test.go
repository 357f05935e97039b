package daemon

import (
	"net/netip"
	"testing"

	"tapgw/api"
	"tapgw/internal/packet"
	"tapgw/policy"
)

// TestHostPins: what is pinned comes before the rules of the configuration, but for those at its head that leave sessions as they are.
func TestHostPins(t *testing.T) {
	d := new(Daemon)
	d.hostPins.Store(&[]hostPin{
		{Pin: api.Pin{Inside: netip.MustParseAddr("10.0.0.9"), Site: "example.com", Uplink: "lte"}, domain: "example.com"},
		{Pin: api.Pin{Site: "10.9.0.0/24", Uplink: "fiber"}, addresses: netip.MustParsePrefix("10.9.0.0/24")},
		{Pin: api.Pin{Inside: netip.MustParseAddr("10.0.0.9"), Uplink: "fiber"}},
		{Pin: api.Pin{Inside: netip.MustParseAddr("fd00::9"), Uplink: "lte"}},
	})
	p := planOf(t, d, planned)
	named := policy.Facts{Domains: func(policy.Session) []string { return []string{"www.example.com"} }}
	for _, test := range []struct {
		inside, remote string
		own            bool
		facts          *policy.Facts
		want           string
	}{
		{"10.0.0.9", "203.0.113.1", false, &named, "tapgw pin lte"},
		{"10.0.0.9", "203.0.113.1", false, &policy.Facts{}, "tapgw pin fiber"},
		{"10.0.0.9", "10.99.0.1", false, &named, exemptRule},
		{"10.0.0.8", "203.0.113.1", false, &named, "b"},
		{"198.18.0.1", "10.9.0.1", true, &policy.Facts{}, "tapgw pin fiber"},
		{"10.0.0.8", "10.9.0.1", false, &policy.Facts{}, "a"},
		{"198.18.0.1", "203.0.113.1", true, &policy.Facts{}, "b"},
		{"fd00::9", "2001:db8::1", false, &policy.Facts{}, "tapgw pin lte"},
	} {
		s := policy.Session{
			Inside: netip.MustParseAddr(test.inside), Remote: netip.MustParseAddr(test.remote), Proto: packet.ProtoTCP, RemotePort: 443, Own: test.own,
		}
		rule := &p.Rules[p.Find(&s, test.facts)]
		got := rule.Name
		if got == hostPinRule {
			got = p.Groups[rule.Action.Group].Name
		}
		if got != test.want {
			t.Errorf("%s to %s: %q, want %q", test.inside, test.remote, got, test.want)
		}
	}
	if n := len(p.Groups); n != 5 {
		t.Errorf("%d groups", n)
	}
}
