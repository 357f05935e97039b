package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestCarrierIsReadAtOnce: a TUN device, as a network card, loses its carrier often before watchers are told.
func TestCarrierIsReadAtOnce(t *testing.T) {
	w := newWorld(t)
	tun := w.tun("tun7", "203.0.113.9/32", unix.IFF_TUN)
	index := w.link("tun7").Attrs().Index
	for range 3 {
		for _, want := range []bool{false, true} {
			value := 0
			if want {
				value = 1
			}
			w.must(unix.IoctlSetPointerInt(int(tun.Fd()), unix.TUNSETCARRIER, value))
			if got, err := w.k.Carrier(index); err != nil || got != want {
				t.Fatalf("carrier %t (%v), want %t", got, err, want)
			}
		}
	}
	if _, err := w.k.Carrier(1 << 20); err == nil {
		t.Error("a device that does not exist has a carrier")
	}
}
