package daemon

import (
	"testing"
	"time"
)

// TestSleepCountsAsIdle: the clock leaps by the time that the machine slept, once.
func TestSleepCountsAsIdle(t *testing.T) {
	asleep := time.Hour // before the daemon began
	c := newClock()
	c.suspended = func() time.Duration { return asleep }
	c.before = asleep
	before := c.tick()
	if c.woke() {
		t.Error("sleep of before the start counts")
	}
	asleep += 10 * time.Minute
	if !c.woke() {
		t.Fatal("sleep was not noticed")
	}
	if gone := c.since(before); gone < 10*time.Minute || gone > 11*time.Minute {
		t.Errorf("%s went by, want 10 min", gone)
	}
	asleep += nap / 2
	if c.woke() {
		t.Error("reading two clocks one after the other is no sleep")
	}
}
