package policy

// rateNoise is the difference between rates that means nothing: one full-size packet within a 250 ms reading is already
// 0.24 % of 20 Mbit/s. Without it, the link with the least background chatter would get every session of a quiet network.
const rateNoise = 0.02

// leastLoad picks where the session may go fastest: a large link that is half used before a small one that is idle. Equals,
// such as idle links of one size, take turns in proportion to capacity. Rates must include what was placed since the last
// reading, or all sessions of one reading herd.
type leastLoad struct{ turns rotation }

func newLeastLoad() Scheduler { return &leastLoad{} }

func (*leastLoad) Name() string { return Default }

func (s *leastLoad) clone() Scheduler { c := *s; return &c }

func (s *leastLoad) Pick(_ Request, c []Candidate) int {
	most := 0.0
	for i := range c {
		most = max(most, c[i].rate())
	}
	return s.turns.among(c, func(c *Candidate) bool { return c.rate() >= most*(1-rateNoise) })
}
