package policy

import (
	"math"
	"time"
)

// latencyNoise is the difference between round trips that nobody notices.
const latencyNoise = 2 * time.Millisecond

// lowestLatency picks the shortest round trip, which grows where packets queue. Equals take turns in proportion to capacity.
type lowestLatency struct{ turns rotation }

func newLowestLatency() Scheduler { return &lowestLatency{} }

func (*lowestLatency) Name() string { return "lowest-latency" }

func (s *lowestLatency) clone() Scheduler { c := *s; return &c }

func (s *lowestLatency) Pick(_ Request, c []Candidate) int {
	shortest := time.Duration(math.MaxInt64)
	for i := range c {
		shortest = min(shortest, c[i].latency())
	}
	return s.turns.among(c, func(c *Candidate) bool { return c.latency()-latencyNoise <= shortest })
}

// latency is the longest there can be while none is known.
func (c *Candidate) latency() time.Duration {
	if c.Latency <= 0 {
		return math.MaxInt64
	}
	return c.Latency
}
