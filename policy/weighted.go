package policy

// weighted gives every candidate its configured share of the sessions, whatever their load.
type weighted struct{ turns rotation }

func newWeighted() Scheduler { return &weighted{} }

func (*weighted) Name() string { return "weighted" }

func (s *weighted) clone() Scheduler { c := *s; return &c }

func (s *weighted) Pick(_ Request, c []Candidate) int {
	for i := range c {
		s.turns.share[i] = c[i].weight()
	}
	return s.turns.next(c)
}
