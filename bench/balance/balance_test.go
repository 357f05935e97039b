package main

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"tapgw/policy"
)

// TestDefaultScheduler is a short form of the report: no other scheduler may be clearly better than the default, which
// withstands what only a measurement shows.
func TestDefaultScheduler(t *testing.T) {
	const seeds, flows = 4, 10_000
	for _, s := range scenarios() {
		if s.sizes != &webSearch || s.load != 0.6 {
			continue
		}
		r := measure(&s, seeds, flows)
		for _, name := range policy.Names() {
			if e := r.ratio(policy.Default, name); e.mean > 1.1 {
				t.Errorf("%s: p99 is %.2f ± %.2f of that of %s", s.name, e.mean, e.half, name)
			}
		}
		if e := r.ratio("least-sessions", policy.Default); (s.foreign > 0 || s.idle > 0) && e.mean < betterThan {
			t.Errorf("%s: p99 of least-sessions is only %.2f times as high", s.name, e.mean)
		}
		if e := r.ratio(policy.Default, random); s.special() == "" && e.mean > 0.7 {
			t.Errorf("%s: p99 is %.2f of that of a random choice", s.name, e.mean)
		}
	}
}

// TestQueue compares the simulator with the theory of a link of its own (M/G/1 processor sharing): the mean slowdown is
// 1/(1-load), whatever the sizes.
func TestQueue(t *testing.T) {
	for _, load := range []float64{0.3, 0.6} {
		s := scenario{sizes: &webSearch, capacities: []float64{100e6}, load: load}
		sum := 0.0
		const seeds = 5
		for seed := range uint64(seeds) {
			w := newWorld(&s, func(*world, int) int { return 0 }, seed)
			w.run(50_000)
			sum += w.figures().mean / seeds
		}
		if want := 1 / (1 - load); math.Abs(sum-want) > 0.05*want {
			t.Errorf("load %.1f: mean slowdown %.3f, want %.3f", load, sum, want)
		}
	}
}

// TestSizes: what is drawn has the published shares and the mean that loads are computed from.
func TestSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []*sizes{&webSearch, &dataMining, &campus} {
		const draws = 200_000
		below, sum := make([]int, len(s.bytes)), 0.0
		for range draws {
			bits := s.draw(r)
			sum += bits
			for i := range s.bytes {
				if bits <= 8*s.bytes[i] {
					below[i]++
				}
			}
		}
		for i := range s.bytes {
			if got := float64(below[i]) / draws; math.Abs(got-s.shares[i]) > 0.005 {
				t.Errorf("%s: %.4f are no larger than %.0f bytes, want %.4f", s.name, got, s.bytes[i], s.shares[i])
			}
		}
		if got, want := sum/draws, s.mean(); math.Abs(got-want) > 0.3*want { // the mean of a heavy tail settles slowly
			t.Errorf("%s: mean %.0f bits, computed %.0f", s.name, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	s := scenarios()[0]
	var out strings.Builder
	measure(&s, 2, 500).print(&out)
	for _, name := range append(policy.Names(), random, knowsRates, knowsSizes) {
		if !strings.Contains(out.String(), name) {
			t.Errorf("%s is missing in:\n%s", name, out.String())
		}
	}
}
