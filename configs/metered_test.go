package configs

import "testing"

// TestMetered: what may be left out of a block metered, and what it means for the tier.
func TestMetered(t *testing.T) {
	month := Metered{Enabled: true, BillingDay: 1, Warn: 80, Stop: 100}
	capped := month
	capped.Cap = 20e9
	for _, tt := range []struct {
		text string
		want Metered
		tier int
	}{
		{"", Metered{}, 0},
		{"metered: false", Metered{}, 0},
		{"metered: true", month, 1},
		{"metered: true, tier: 0", month, 0},
		{"metered: true, tier: 3", month, 3},
		{"metered: null", Metered{}, 0},
		{"metered: {}", Metered{}, 0},
		{"metered: {enabled: false, cap: 20GB}", Metered{}, 0},
		{"metered: {enabled: true}", month, 1},
		{"metered: {cap: 20GB}", capped, 1},
		{"metered: {cap: 1.5 TB, billing_day: 31, warn: off, stop: off}", Metered{true, 1.5e12, 31, ShareOff, ShareOff}, 1},
		{"metered: {cap: 500mb, stop: 120%}", Metered{true, 500e6, 1, 80, 120}, 1},
		{"metered: {billing_day: 15}", Metered{true, 0, 15, 80, 100}, 1},
	} {
		text := "uplinks: [{interface: wwan0, " + tt.text + "}]"
		loaded, err := Parse([]byte(text), "f")
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		u := loaded.Config.Uplinks[0]
		if u.Metered != tt.want || u.Tier != tt.tier {
			t.Errorf("%s: %+v, tier %d", text, u.Metered, u.Tier)
		}
		if len(loaded.Warnings) > 0 {
			t.Errorf("%s: %v", text, loaded.Warnings)
		}
	}
}

func TestMeteredWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"metered: {cap: 20GB, warn: 90%, stop: 80%}": "f:1: uplinks[0].metered.warn: at 90% the uplink has stopped already; warn earlier, or write warn: off",
		"metered: {warn: 50%}":                       "f:1: uplinks[0].metered: thresholds have no effect without a cap; add for example cap: 20GB",
	} {
		loaded, err := Parse([]byte("uplinks: [{interface: wwan0, "+text+"}]"), "f")
		if err != nil || loaded.Warnings.Error() != want {
			t.Errorf("%s: %v, %v", text, err, loaded.Warnings)
		}
	}
}
