package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"sync"

	"tapgw/policy"
)

const (
	random     = "random by capacity"
	knowsRates = "oracle of rates"
	knowsSizes = "oracle of sizes"
	halfOf     = 0.5 // of random's p99 is what the default may have at 60 % load
	betterThan = 2   // times is how much better it must be than least-sessions where only measurement can win
)

// figures are those of one run.
type figures struct{ mean, p99, used float64 }

// result is a row: the figures of every scheduler, by seed.
type result struct {
	*scenario
	names []string
	runs  map[string][]figures
}

// measure runs a scenario with every scheduler and that many seeds: all schedulers meet the same flows.
func measure(s *scenario, seeds, flows int) *result {
	r := &result{scenario: s, names: append(policy.Names(), random, knowsRates, knowsSizes), runs: make(map[string][]figures)}
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for _, name := range r.names {
		runs := make([]figures, seeds)
		r.runs[name] = runs
		for seed := range seeds {
			wait.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				w := newWorld(s, chooserOf(name, uint64(seed)), uint64(seed))
				w.run(flows)
				runs[seed] = w.figures()
			})
		}
	}
	wait.Wait()
	return r
}

func chooserOf(name string, seed uint64) chooser {
	switch name {
	case random:
		return byCapacity(seed)
	case knowsRates:
		return fairest
	case knowsSizes:
		return shortest
	}
	return scheduled(name)
}

func (w *world) figures() (f figures) {
	slices.Sort(w.slowdowns)
	f.p99 = w.slowdowns[len(w.slowdowns)*99/100]
	for _, s := range w.slowdowns {
		f.mean += s / float64(len(w.slowdowns))
	}
	carried, capacity := 0.0, 0.0
	for i, l := range w.links {
		carried += l.ours + l.others
		capacity += w.capacities[i]
	}
	f.used = carried / (capacity * w.now)
	return f
}

// estimate is a mean over seeds and half the width of its 95 % confidence interval.
type estimate struct{ mean, half float64 }

func estimateOf(values []float64) (e estimate) {
	n := float64(len(values))
	for _, v := range values {
		e.mean += v / n
	}
	if n < 2 {
		return e
	}
	square := 0.0
	for _, v := range values {
		square += (v - e.mean) * (v - e.mean)
	}
	const t = 2.1 // Student's, for 19 degrees of freedom
	e.half = t * math.Sqrt(square/(n-1)/n)
	return e
}

func (r *result) of(name string, of func(figures) float64) estimate {
	values := make([]float64, 0, len(r.runs[name]))
	for _, f := range r.runs[name] {
		values = append(values, of(f))
	}
	return estimateOf(values)
}

// ratio is the p99 of one scheduler to that of another: the geometric mean over seeds, which meet the same flows.
func (r *result) ratio(a, b string) estimate {
	values := make([]float64, 0, len(r.runs[a]))
	for i := range r.runs[a] {
		values = append(values, math.Log(r.runs[a][i].p99/r.runs[b][i].p99))
	}
	e := estimateOf(values)
	return estimate{math.Exp(e.mean), math.Exp(e.mean)*math.Exp(e.half) - math.Exp(e.mean)}
}

// missed lists the bars that the default scheduler does not reach.
func (r *result) missed() (list []string) {
	for _, name := range policy.Names() {
		if e := r.ratio(policy.Default, name); e.mean-e.half > 1 && name != policy.Default {
			list = append(list, fmt.Sprintf("p99 is %.2f ± %.2f of that of %s", e.mean, e.half, name))
		}
	}
	if e := r.ratio(policy.Default, random); r.load == 0.6 && r.special() == "" && !r.fails && e.mean > halfOf {
		possible := r.ratio(knowsRates, random)
		list = append(list, fmt.Sprintf("p99 is %.2f ± %.2f of that of %s, not %.1f; of the %s %.2f", e.mean, e.half, random, halfOf, knowsRates, possible.mean))
	}
	if e := r.ratio("least-sessions", policy.Default); r.special() != "" && e.mean < betterThan {
		possible := r.ratio("least-sessions", knowsRates)
		list = append(list, fmt.Sprintf("p99 of least-sessions is %.2f ± %.2f times as high, not %d; of the %s %.2f", e.mean, e.half, betterThan, knowsRates, possible.mean))
	}
	return list
}

func (r *result) print(to io.Writer) {
	fmt.Fprintf(to, "%s\n  %-20s %18s %20s  %6s\n", r.name, "slowdown", "mean", "p99", "used")
	for _, name := range r.names {
		mean, p99 := r.of(name, func(f figures) float64 { return f.mean }), r.of(name, func(f figures) float64 { return f.p99 })
		used := r.of(name, func(f figures) float64 { return f.used })
		fmt.Fprintf(to, "  %-20s %9.2f ± %6.2f %10.1f ± %7.1f  %4.0f %%\n", name, mean.mean, mean.half, p99.mean, p99.half, used.mean*100)
	}
	for _, m := range r.missed() {
		fmt.Fprintf(to, "  MISSED: %s\n", m)
	}
	fmt.Fprintln(to)
}
