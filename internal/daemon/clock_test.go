package daemon

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
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

// TestClocksAreReadInOrder: whatever runs between the readings of the two clocks, what is due by one is never early by the other.
func TestClocksAreReadInOrder(t *testing.T) {
	var over atomic.Bool
	defer over.Store(true)
	for range 2 * runtime.NumCPU() {
		go func() {
			for !over.Load() { //nolint:revive // what else runs
			}
		}()
	}
	for begun := time.Now(); time.Since(begun) < time.Second; {
		c := newClock()
		var now unix.Timespec
		labtest.Must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
		if early := time.Duration(now.Nano()) - time.Since(c.start) - c.monotonic; early > 0 {
			t.Fatalf("%s early", early)
		}
	}
}
