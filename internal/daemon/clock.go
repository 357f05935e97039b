package daemon

import (
	"time"

	"tapgw/nat"
)

// clock turns the monotonic time since the daemon's start into ticks of the session table. Wall clock jumps do not
// reach it.
type clock struct{ start time.Time }

// startOffset keeps tick 0, which the table may use for "never", out of use.
const startOffset = time.Second

func newClock() clock { return clock{time.Now()} }

// tick is the present in the table's units.
func (c clock) tick() nat.Tick { return nat.TickOf(time.Since(c.start) + startOffset) }

// since is how long ago a tick was.
func (c clock) since(t nat.Tick) time.Duration { return t.Since(c.tick()) }
