package daemon

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/nat"
)

// clock turns the time since the daemon's start, sleep of the machine included, into ticks of the session table. Wall
// clock jumps do not reach it.
type clock struct {
	start     time.Time
	slept     *atomic.Int64        // nanoseconds since the start, as of the last call of woke
	suspended func() time.Duration // since the boot
	before    time.Duration        // suspended at the start
	monotonic time.Duration        // CLOCK_MONOTONIC at the start
}

const (
	// startOffset keeps tick 0, which the table may use for "never", out of use.
	startOffset = time.Second
	// nap is too short a sleep to matter: the two clocks are not read at the same instant.
	nap = 100 * time.Millisecond
)

func newClock() clock {
	start := time.Now() // before the other clock is read, or timers set by both would be early, and be set again and again until they are due
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every kernel has it
	return clock{start: start, slept: new(atomic.Int64), suspended: suspended, before: suspended(), monotonic: time.Duration(now.Nano())}
}

// fromMonotonic is what makes of CLOCK_MONOTONIC the time that tick counts; it changes when the machine wakes.
func (c clock) fromMonotonic() time.Duration {
	return time.Duration(c.slept.Load()) + startOffset - c.monotonic
}

// tick is the present in the table's units.
func (c clock) tick() nat.Tick {
	return nat.TickOf(time.Since(c.start) + time.Duration(c.slept.Load()) + startOffset)
}

// fine is the present for what is shorter than a tick; time that the machine slept does not count.
func (c clock) fine() time.Duration { return time.Since(c.start) + startOffset }

// since is how long ago a tick was.
func (c clock) since(t nat.Tick) time.Duration { return t.Since(c.tick()) }

// woke reports whether the machine has slept since the last call, and counts that time as idle from now on.
func (c clock) woke() bool {
	slept := c.suspended() - c.before
	if slept-time.Duration(c.slept.Load()) < nap {
		return false
	}
	c.slept.Store(int64(slept))
	return true
}

// suspended is what the monotonic clock, on which Go measures time, leaves out.
func suspended() time.Duration {
	var boot, running unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &running) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - running.Nano())
}
