package main

import (
	"math"
	"math/rand/v2"

	"tapgw/policy"
)

// scheduled runs one of the product's schedulers.
func scheduled(name string) chooser {
	s, err := policy.New(name)
	if err != nil {
		panic(err) // the names are those that package policy lists
	}
	return func(w *world, host int) int {
		c := w.listed()
		d, _ := policy.Decide(s, policy.Request{Source: uint64(host + 1)}, c)
		return int(c[d.Index].ID)
	}
}

// byCapacity draws a link, each in proportion to its capacity.
func byCapacity(seed uint64) chooser {
	r := rand.New(rand.NewPCG(seed, 2))
	return func(w *world, _ int) int {
		c, sum := w.listed(), 0.0
		for i := range c {
			sum += w.capacities[c[i].ID]
		}
		x := r.Float64() * sum
		for i := range c {
			if x -= w.capacities[c[i].ID]; x < 0 {
				return int(c[i].ID)
			}
		}
		return int(c[len(c)-1].ID)
	}
}

// fairest knows what the links can carry of ours at every moment, and picks the largest share.
func fairest(w *world, _ int) int {
	return w.least(func(l *link) float64 { return float64(len(l.flows)+1) / (l.capacity - l.foreign) })
}

// shortest knows besides how much there is left to do, and picks where that takes the least time.
func shortest(w *world, _ int) int {
	return w.least(func(l *link) float64 { return l.unfinished() / (l.capacity - l.foreign) })
}

// least is the link with the lowest cost.
func (w *world) least(cost func(*link) float64) int {
	best, lowest := 0, math.Inf(1)
	for _, c := range w.listed() {
		if now := cost(w.links[c.ID]); now < lowest {
			best, lowest = int(c.ID), now
		}
	}
	return best
}
