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

func TestAddr(t *testing.T) {
	if got := IPv4(0xc0000201); got.Netip() != netip.MustParseAddr("192.0.2.1") || !got.Is4() {
		t.Errorf("0xc0000201 is %s, want 192.0.2.1", got.Netip())
	}
	if got := AddrOf(netip.MustParseAddr("2001:db8::1")); got != (Addr{0x20010db8 << 32, 1}) || got.Is4() {
		t.Errorf("2001:db8::1 is %#x", got)
	}
	if got := AddrOf(netip.Addr{}); got != (Addr{}) {
		t.Errorf("no address is %#x", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		if want := netip.AddrFrom16([16]byte(b)).Unmap(); AddrOf(want).Netip() != want || AddrOf(want).Is4() != want.Is4() {
			t.Errorf("%s becomes %s", want, AddrOf(want).Netip())
		}
	})
}
