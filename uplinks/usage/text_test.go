package usage

import (
	"math"
	"testing"
)

func TestAmount(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1 kB", 1050: "1.1 kB", 20e9: "20 GB", 19_960_000_000: "20 GB", 19_530_000_000: "19.5 GB",
		99_960_000: "100 MB", 999_600_000: "1 GB", 1.5e12: "1.5 TB", math.MaxUint64: "18.4 EB",
	} {
		if got := Amount(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}

func TestText(t *testing.T) {
	u := Usage{Cap: 20e9, Ends: at("2026-12-15 00:00:00")}
	if got := u.Text(80); got != "80 % of 20 GB used, until 15 Dec" {
		t.Error(got)
	}
}
