package policy

// roundRobin goes through the candidates by ID, each in turn, whatever their capacity.
type roundRobin struct{ last int }

func newRoundRobin() Scheduler { return &roundRobin{last: -1} }

func (*roundRobin) Name() string { return "round-robin" }

func (s *roundRobin) clone() Scheduler { c := *s; return &c }

// Pick returns the next larger ID, or the smallest after the largest. IDs rather than positions are remembered, as
// candidates come and go.
func (s *roundRobin) Pick(_ Request, c []Candidate) int {
	first, next := 0, -1
	for i := range c {
		id := c[i].ID
		if id < c[first].ID {
			first = i
		}
		if int(id) > s.last && (next < 0 || id < c[next].ID) {
			next = i
		}
	}
	if next < 0 {
		next = first
	}
	s.last = int(c[next].ID)
	return next
}
