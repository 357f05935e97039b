package configs

import (
	"fmt"
	"strings"
	"testing"
)

// TestRFC6296_S3_1_Configuration: prefixes of any length are taken, native ones and the user's own on several uplinks too; where some
// hosts have no address outside, a warning says so.
func TestRFC6296_S3_1_Configuration(t *testing.T) {
	for _, c := range []struct{ first, second, warning string }{
		{"fd00:1::/48=2001:db8:100::/48", "fd00:1::/48=2001:db8:200::/48", ""},
		{"2001:db8:100::/48=2001:db8:100::/48", "2001:db8:100::/48=2001:db8:200::/48", ""},
		{"2001:db8:100::/48=2001:db8:100::/48", "2001:db8:100::/48=2001:db8:100::/48", ""},
		{"['fd00:1::/64 = 2001:db8:100::/56']", "fd00:2::/61=2001:db8:200::/61", ""},
		{"fd00:1::/48=2001:db8:100::/56", "fd00:1::/48=2001:db8:200::/48", "fd00:1::/56"},
	} {
		loaded, err := Parse(fmt.Appendf(nil, "uplinks: [{interface: a, nptv6: %s}, {interface: b, nptv6: [%s]}]", c.first, c.second), "f")
		if err != nil {
			t.Errorf("%s and %s: %v", c.first, c.second, err)
			continue
		}
		if got := loaded.Warnings.Error(); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
			t.Errorf("%s and %s: %s", c.first, c.second, got)
		}
		if n := loaded.Config.Uplinks[1].NPTv6; len(n) != 1 || n[0].String() != c.second {
			t.Errorf("%s became %v", c.second, n)
		}
	}
	var many strings.Builder
	for i := range maxNPTv6 + 1 {
		fmt.Fprintf(&many, "fd00:%x::/48=2001:db8:%x::/48,", i, i)
	}
	if _, err := Parse(fmt.Appendf(nil, "uplinks: [{interface: a, nptv6: [%s]}]", many.String()), "f"); err == nil {
		t.Errorf("%d pairs are taken", maxNPTv6+1)
	}
}
