package policy

// failover keeps everything on the first candidate of the lowest tier; the others only stand by.
type failover struct{}

func newFailover() Scheduler { return failover{} }

func (failover) Name() string { return "failover" }

func (s failover) clone() Scheduler { return s }

func (failover) Pick(_ Request, c []Candidate) int {
	best := 0
	for i := range c {
		if c[i].Tier < c[best].Tier {
			best = i
		}
	}
	return best
}
