package daemon

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"tapgw/policy"
)

// TestHosts: the kernel is asked once a second about a host at most, about the host itself never, and memory is bounded.
func TestHosts(t *testing.T) {
	asked := 0
	h := &hosts{known: make(map[netip.Addr]host), ask: func(a netip.Addr) (string, [6]byte, error) {
		if asked++; a.Is6() {
			return "lost", [6]byte{}, errors.New("no way")
		}
		return "br0", [6]byte{2, byte(asked)}, nil
	}}
	a, now := netip.MustParseAddr("10.0.0.2"), time.Now()
	h.find(a, now)
	if got := h.find(a, now.Add(hostLife/2)); got.device != "br0" || got.mac != (policy.MAC{2, 1}) || asked != 1 {
		t.Errorf("%+v, asked %d times", got, asked)
	}
	if got := h.find(a, now.Add(hostLife)); got.mac != (policy.MAC{2, 2}) {
		t.Errorf("%+v is outdated", got)
	}
	if got := h.find(netip.MustParseAddr("fd00::1"), now); got.device != "" {
		t.Errorf("%+v", got)
	}
	asked = 0
	if _, ok := h.macOf(policy.Session{Inside: a, Own: true}); ok || h.interfaceOf(policy.Session{Inside: a, Own: true}) != "" || asked > 0 {
		t.Error("the host itself is behind no device")
	}
	for range 2 * maxHosts {
		a = a.Next()
		h.find(a, now)
	}
	if len(h.known) > maxHosts {
		t.Errorf("%d hosts are remembered", len(h.known))
	}
}
