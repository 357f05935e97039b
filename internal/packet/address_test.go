package packet

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestHostOrder(t *testing.T) {
	for text, want := range map[string]uint32{
		"0.0.0.0": 0, "192.0.2.1": 0xc0000201, "255.255.255.255": 0xffffffff, "::ffff:192.0.2.1": 0xc0000201,
	} {
		if got := HostOrder(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %#x, want %#x", text, got, want)
		}
	}
}

func TestAddrOf(t *testing.T) {
	if got := AddrOf(0xc0000201); got != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("0xc0000201 is %s, want 192.0.2.1", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		if a := rapid.Uint32().Draw(t, "address"); HostOrder(AddrOf(a)) != a {
			t.Errorf("%#x becomes %#x", a, HostOrder(AddrOf(a)))
		}
	})
}
