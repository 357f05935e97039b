package policy

import "math"

// sourceHash keeps each source on one candidate, in proportion to weight, whatever the load. When candidates come and go, only
// the sources of these move (rendezvous hashing).
type sourceHash struct{}

func newSourceHash() Scheduler { return sourceHash{} }

func (sourceHash) Name() string { return "source-hash" }

func (s sourceHash) clone() Scheduler { return s }

func (sourceHash) Pick(r Request, c []Candidate) int {
	best, highest := 0, 0.0
	for i := range c {
		if score := -c[i].weight() / math.Log(uniform(r.Source, c[i].ID)); score > highest {
			best, highest = i, score
		}
	}
	return best
}

// uniform makes of a source and a candidate a number between 0 and 1, both excluded (the finaliser of SplitMix64).
func uniform(source uint64, id uint8) float64 {
	x := source + (uint64(id)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return (float64(x>>12) + 0.5) / (1 << 52)
}
