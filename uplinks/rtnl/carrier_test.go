package rtnl

import (
	"errors"
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
			if got, err := w.k.Measure(index); err != nil || got.Carrier != want {
				t.Fatalf("carrier %t (%v), want %t", got.Carrier, err, want)
			}
		}
	}
	if _, err := w.k.Measure(1 << 20); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device that does not exist has a carrier: %v", err)
	}
}

// TestMeasureIsCheap: it is done several times a second for as long as the daemon runs.
func TestMeasureIsCheap(t *testing.T) {
	w := newWorld(t)
	index := w.veth("eth7", "192.0.2.2", "192.0.2.1")
	if n := testing.AllocsPerRun(100, func() { _, _ = w.k.Measure(index) }); n > 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// FuzzParseLink: what is not an answer is refused.
func FuzzParseLink(f *testing.F) {
	f.Add(make([]byte, ifinfoSize))
	f.Add(append(make([]byte, ifinfoSize), 3, 0, 0, 0))
	f.Add(append(make([]byte, ifinfoSize), 255, 255, unix.IFLA_STATS64, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseLink(b); err != nil && !errors.Is(err, errAnswer) {
			t.Error(err)
		}
	})
}
