package policy

import "math"

// loadNoise is the difference of utilisation that means nothing: one full-size packet within a 250 ms reading is already
// 0.24 % of 20 Mbit/s. Without it, the link with the least background chatter would get every session of a quiet network.
const loadNoise = 0.005

// leastLoad picks the lowest load. Equally loaded candidates, such as idle ones, take turns in proportion to capacity,
// the largest first. Loads must include what was placed since the last reading, or all sessions of one reading herd.
type leastLoad struct{ turns rotation }

func newLeastLoad() Scheduler { return &leastLoad{} }

func (*leastLoad) Name() string { return Default }

func (s *leastLoad) Pick(c []Candidate) int {
	lowest := math.Inf(1)
	for i := range c {
		lowest = math.Min(lowest, c[i].load())
	}
	for i := range c {
		s.turns.share[i] = 0
		if c[i].load() <= lowest+loadNoise {
			s.turns.share[i] = c[i].capacity()
		}
	}
	return s.turns.next(c)
}
