package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"tapgw/configs"
	"tapgw/uplinks"
)

func TestCheckTAPAddress(t *testing.T) {
	c := configs.Default()
	for text, refused := range map[string]bool{
		"192.0.2.1/24": false, "198.18.73.9/24": false, "198.18.73.1/24": true, "198.18.73.2/32": true,
	} {
		err := checkTAPAddress(&c, uplinks.Facts{Addresses: []uplinks.Address{{Index: 2, Prefix: netip.MustParsePrefix(text)}}})
		if (err != nil) != refused {
			t.Errorf("%s: got %v, want refused %t", text, err, refused)
		}
		if refused && !strings.Contains(err.Error(), "tap.address") {
			t.Errorf("%s: %v does not say what to do", text, err)
		}
	}
}
