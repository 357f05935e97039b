package policy

// full is the load at which sessions overflow to the next candidate: short of what would queue.
const full = 0.8

// overflow fills the candidates one after the other, those of lower tiers first, and in a tier by ID. When all are full it
// picks the least loaded.
type overflow struct{}

func newOverflow() Scheduler { return overflow{} }

func (overflow) Name() string { return "overflow" }

func (s overflow) clone() Scheduler { return s }

func (overflow) acrossTiers() {}

func (overflow) Pick(_ Request, c []Candidate) int {
	first, least := -1, 0
	for i := range c {
		if c[i].load() < c[least].load() {
			least = i
		}
		if c[i].load() < full && (first < 0 || c[i].before(&c[first])) {
			first = i
		}
	}
	if first < 0 {
		return least
	}
	return first
}

// before reports whether c is preferred to other by tier, then by ID.
func (c *Candidate) before(other *Candidate) bool {
	if c.Tier != other.Tier {
		return c.Tier < other.Tier
	}
	return c.ID < other.ID
}
