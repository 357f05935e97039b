package policy

// Decision says which candidate was chosen and why.
type Decision struct {
	Index     int    // into the candidates
	Tier      int    // of the chosen candidate
	Scheduler string // who chose, also when there was no choice
	Reason    Reason
}

// maxCandidates follows from the IDs being distinct bytes.
const maxCandidates = 256

// spanning schedulers choose among the candidates of all tiers.
type spanning interface{ acrossTiers() }

// Decide chooses among the lowest tier present in c, which the caller has filtered to usable candidates; false when c is
// empty. It does not allocate. It borrows c for the call: the order is changed meanwhile and restored.
func Decide(s Scheduler, r Request, c []Candidate) (Decision, bool) {
	if len(c) == 0 {
		return Decision{}, false
	}
	c = c[:min(len(c), maxCandidates)]
	if _, ok := s.(spanning); ok && len(c) > 1 {
		i := s.Pick(r, c)
		return Decision{Index: i, Tier: c[i].Tier, Scheduler: s.Name(), Reason: ReasonScheduler}, true
	}
	tier := lowestTier(c)
	var from [maxCandidates]uint8
	n := gather(c, tier, &from)
	d := Decision{Tier: tier, Scheduler: s.Name(), Reason: ReasonScheduler}
	switch {
	case n > 1:
		d.Index = int(from[s.Pick(r, c[:n])])
	case len(c) > 1:
		d.Index, d.Reason = int(from[0]), ReasonOnlyInTier
	default:
		d.Reason = ReasonOnly
	}
	restore(c, n, &from)
	return d, true
}

func lowestTier(c []Candidate) int {
	tier := c[0].Tier
	for i := range c {
		tier = min(tier, c[i].Tier)
	}
	return tier
}

// gather swaps the candidates of a tier to the front in their order and notes where each came from: schedulers get a
// plain slice without a copy, which would escape to the heap through the interface.
func gather(c []Candidate, tier int, from *[maxCandidates]uint8) (n int) {
	for i := range c {
		if c[i].Tier == tier {
			c[n], c[i] = c[i], c[n]
			from[n] = uint8(i)
			n++
		}
	}
	return n
}

// restore undoes the swaps of gather, last first.
func restore(c []Candidate, n int, from *[maxCandidates]uint8) {
	for k := n - 1; k >= 0; k-- {
		i := from[k]
		c[k], c[i] = c[i], c[k]
	}
}
