package policy

import "math"

// leastSessions picks the fewest active sessions for the capacity, counting the one to be placed. Equals take turns in
// proportion to capacity.
type leastSessions struct{ turns rotation }

func newLeastSessions() Scheduler { return &leastSessions{} }

func (*leastSessions) Name() string { return "least-sessions" }

func (s *leastSessions) clone() Scheduler { c := *s; return &c }

func (s *leastSessions) Pick(_ Request, c []Candidate) int {
	fewest := math.Inf(1)
	for i := range c {
		fewest = math.Min(fewest, crowding(&c[i]))
	}
	return s.turns.among(c, func(c *Candidate) bool { return crowding(c) <= fewest })
}

// crowding is the sessions per bit/s if one more were placed on c.
func crowding(c *Candidate) float64 {
	return (float64(max(c.Sessions, 0)) + 1) / c.capacity()
}
