package policy

// rotation hands out turns in proportion to shares and spreads them evenly (smooth weighted round robin). Turns are
// counted as fractions of one, so credit stays within a few turns even when candidates come and go or shares change scale.
type rotation struct {
	credit [maxCandidates]float64 // turns owed, by candidate ID
	share  [maxCandidates]float64 // of the current call, by position; 0 takes no part
}

// rounding keeps the order of equals steady, as a third is no exact float.
const rounding = 1e-9

// among returns the index of the candidate whose turn it is among those that take part, in proportion to capacity.
func (r *rotation) among(c []Candidate, takesPart func(*Candidate) bool) int {
	for i := range c {
		r.share[i] = 0
		if takesPart(&c[i]) {
			r.share[i] = c[i].capacity()
		}
	}
	return r.next(c)
}

// next returns the index of the candidate whose turn it is; at least one share must be positive.
func (r *rotation) next(c []Candidate) int {
	total := 0.0
	for i := range c {
		total += r.share[i]
	}
	best := -1
	for i := range c {
		id := c[i].ID
		if r.share[i] <= 0 {
			continue
		}
		r.credit[id] += r.share[i] / total
		if best < 0 || r.credit[id] > r.credit[c[best].ID]+rounding {
			best = i
		}
	}
	r.credit[c[best].ID]--
	return best
}
