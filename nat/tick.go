package nat

import "time"

// Tick is a point in time in units of 2²⁶ ns (67 ms), cheap to derive from the kernel's nanoseconds. It wraps after
// nine years, so ticks are only compared by their difference.
type Tick uint32

const tickShift = 26

// TickOf converts a time since any fixed origin.
func TickOf(d time.Duration) Tick { return Tick(uint64(d) >> tickShift) }

// Since is how long ago t was at now; negative when t is later.
func (t Tick) Since(now Tick) time.Duration { return time.Duration(int32(now-t)) << tickShift }

// ticks is the number of whole ticks that cover d, so that a lifetime is never shorter than configured.
func ticks(d time.Duration) uint32 { return uint32((uint64(d) + 1<<tickShift - 1) >> tickShift) }

// later returns the later of two ticks.
func later(a, b Tick) Tick {
	if int32(a-b) < 0 {
		return b
	}
	return a
}
