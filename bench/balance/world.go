package main

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"tapgw/policy"
	"tapgw/uplinks"
)

const (
	readEvery  = 0.25                   // seconds between readings of the meters, as in the daemon
	noticeTime = 1.0                    // seconds until a dead uplink is noticed, and its flows begin again elsewhere
	hosts      = 50                     // behind the gateway; the n-th has a share of the flows like 1/n (Zipf)
	queueing   = 100 * time.Millisecond // delay of a full link
	idlePath   = 20 * time.Millisecond  // round trip of an idle one
	warmUp     = 0.1                    // part of the flows that only fill the links
)

// scenario is one row of the report.
type scenario struct {
	name       string
	sizes      *sizes
	capacities []float64 // bits per second
	load       float64   // offered, as a share of what the links can carry of ours
	foreign    float64   // bits per second on the first link that we did not place
	idle       int       // sessions on the first link that carry nothing
	halvings   int       // of the first link's capacity, spread over the run
	fails      bool      // the first link does, for a third of the run
}

// available is what the links can carry of ours in the end, bits per second.
func (s *scenario) available() float64 {
	sum := -s.foreign
	for _, c := range s.capacities {
		sum += c
	}
	return sum - s.capacities[0]*(1-math.Pow(0.5, float64(s.halvings)))
}

// world is a run of a scenario with one scheduler.
type world struct {
	*scenario
	choose   chooser
	links    []*link
	meters   []*uplinks.Meter
	learners []*uplinks.Learner
	rng      *rand.Rand
	now      float64

	latency    []time.Duration
	candidates []policy.Candidate
	slowdowns  []float64
}

// chooser chooses a link for a flow of a host.
type chooser func(w *world, host int) int

func newWorld(s *scenario, choose chooser, seed uint64) *world {
	w := &world{scenario: s, choose: choose, rng: rand.New(rand.NewPCG(seed, 1))}
	demand := uplinks.NewDemand()
	for _, c := range s.capacities {
		w.links = append(w.links, &link{capacity: c})
		w.meters = append(w.meters, uplinks.NewMeter(demand))
		w.learners = append(w.learners, uplinks.NewLearner(uplinks.Capacity{Up: uint64(c), Down: uint64(c)}))
	}
	w.latency = make([]time.Duration, len(s.capacities))
	w.links[0].foreign, w.links[0].idle = s.foreign, s.idle
	return w
}

// run offers that many flows and returns when all have ended.
func (w *world) run(flows int) {
	every := w.sizes.mean() / (w.load * w.available()) // seconds between arrivals
	events := w.changes(every * float64(flows))
	arrival, reading := w.rng.ExpFloat64()*every, 0.0
	for offered := 0; offered < flows || w.busy(); {
		at, ended := w.nextEnd()
		next := min(at, reading, arrival)
		if len(events) > 0 && events[0].at <= next {
			w.advance(events[0].at)
			events[0].do()
			events = events[1:]
			continue
		}
		w.advance(next)
		switch next {
		case reading:
			w.read()
			reading += readEvery
		case arrival:
			w.place(&flow{born: w.now, size: w.sizes.draw(w.rng), counts: offered > int(warmUp*float64(flows))})
			arrival += w.rng.ExpFloat64() * every
			if offered++; offered == flows {
				arrival = math.Inf(1)
			}
		default:
			w.end(w.links[ended].pop())
		}
	}
}

// event is something that happens to the links.
type event struct {
	at float64
	do func()
}

func (w *world) changes(length float64) (list []event) {
	first := w.links[0]
	for i := range w.halvings {
		list = append(list, event{length * float64(i+1) / float64(w.halvings+1), func() { first.capacity /= 2 }})
	}
	if w.fails {
		list = append(list, event{length / 3, func() { first.down = true }},
			event{length/3 + noticeTime, func() { w.moveAll(first) }},
			event{length * 2 / 3, func() { first.down = false }})
	}
	slices.SortFunc(list, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return list
}

// moveAll has the flows of a dead link begin again elsewhere.
func (w *world) moveAll(from *link) {
	flows := from.flows
	from.flows = nil
	for _, f := range flows {
		w.place(f)
	}
}

func (w *world) advance(now float64) {
	for _, l := range w.links {
		l.advance(now)
	}
	w.now = now
}

func (w *world) busy() bool {
	return slices.ContainsFunc(w.links, func(l *link) bool { return len(l.flows) > 0 })
}

// nextEnd is when and where the next flow is over.
func (w *world) nextEnd() (at float64, ended int) {
	at = math.Inf(1)
	for i, l := range w.links {
		if t, ok := l.next(); ok && t < at {
			at, ended = t, i
		}
	}
	return at, ended
}

func (w *world) end(f *flow) {
	if f.counts {
		alone := f.size / slices.Max(w.capacities)
		w.slowdowns = append(w.slowdowns, (w.now-f.born)/alone)
	}
}

// place has the scheduler choose a link for a flow. That one is dead is known after a while.
func (w *world) place(f *flow) {
	i := w.choose(w, w.host())
	w.links[i].add(f, f.size)
	w.meters[i].Charge()
}

// host is the one that a flow is of.
func (w *world) host() int {
	return int(math.Pow(hosts+1, w.rng.Float64())) - 1
}
