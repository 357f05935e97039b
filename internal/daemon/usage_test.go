package daemon

import (
	"testing"
	"time"

	"tapgw/configs"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// TestCapEndsWithPeriod: an uplink whose cap was reached is switched on when the next period begins, though nothing else happens.
func TestCapEndsWithPeriod(t *testing.T) {
	d := newTestDaemon(t)
	c := configs.Default()
	c.Uplinks = []configs.Uplink{{Name: "lte", Interface: "lte", Metered: configs.Metered{Enabled: true, Cap: 1000, BillingDay: 15, Stop: 100}}}
	d.config.Store(&configs.Loaded{Config: c})
	d.tracker = uplinks.NewTracker(d.trackerConfig(&c))
	d.used.SetPlans(plans(&c))
	link := uplinks.Facts{Links: []uplinks.Link{{Index: 2, Name: "lte", Up: true, Carrier: true}}}
	at := func(day, hour int, want uplinks.State) {
		t.Helper()
		now := time.Date(2026, time.November, day, hour, 0, 0, 0, time.Local)
		changed := d.followUsage(now)
		s, events := d.tracker.Update(now, link)
		if got := s.Uplinks[0].State; got != want || changed != (len(events) > 0) {
			t.Errorf("on the %d. at %d: %s, changed %t, events %v; want %s", day, hour, got, changed, events, want)
		}
	}
	d.tracker.Update(time.Date(2026, time.November, 14, 0, 0, 0, 0, time.Local), link)
	at(14, 1, uplinks.Down)
	labtest.Must(t, d.used.Set(time.Date(2026, time.November, 14, 2, 0, 0, 0, time.Local), "lte", 1000))
	at(14, 22, uplinks.Disabled)
	at(14, 23, uplinks.Disabled)
	at(15, 0, uplinks.Down) // for want of an address
}
