package bound

import (
	"net/netip"
	"testing"
)

func TestPayload(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		packet string
		from   netip.Addr
		want   string
	}{
		{"\x45" + "0123456789012345678" + "echo", v4, "echo"},
		{"\x46" + "01234567890123456789012" + "echo", v4, "echo"},
		{"\x45" + "012345678901234567", v4, ""}, // cut
		{"\x4f", v4, ""},
		{"", v4, ""},
		{"", v6, ""},
		{"\x45echo", v6, "\x45echo"}, // has none
	} {
		if got := string(Payload([]byte(c.packet), c.from)); got != c.want {
			t.Errorf("%q from %s: %q, want %q", c.packet, c.from, got, c.want)
		}
	}
}
