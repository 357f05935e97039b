package main

import "fmt"

// capacity sets, bits per second.
var capacitySets = []struct {
	name string
	bits []float64
}{
	{"100/100", []float64{100e6, 100e6}},
	{"100/20", []float64{100e6, 20e6}},
	{"500/50/10", []float64{500e6, 50e6, 10e6}},
}

var loads = []float64{0.3, 0.6, 0.9}

const manyIdle = 500 // keep-alive sessions, as phones and televisions leave them on the uplink that worked alone for a while

// scenarios lists all rows. Those that only a measurement can win are of the even pair of links, where nothing else tells
// them apart.
func scenarios() (list []scenario) {
	for _, d := range []*sizes{&webSearch, &dataMining, &campus} {
		for _, c := range capacitySets {
			for _, load := range loads {
				s := scenario{sizes: d, capacities: c.bits, load: load}
				list = append(list, s.named(c.name))
			}
			failing := scenario{sizes: d, capacities: c.bits, load: 0.3 * c.bits[1] / c.bits[0], fails: true}
			list = append(list, failing.named(c.name+", the first fails"))
		}
	}
	pair := capacitySets[0]
	for _, d := range []*sizes{&webSearch, &dataMining, &campus} {
		for _, s := range []scenario{{foreign: 80e6}, {idle: manyIdle}, {halvings: 1}, {halvings: 3}} {
			s.sizes, s.capacities, s.load = d, pair.bits, 0.6
			list = append(list, s.named(pair.name+s.special()))
		}
	}
	return list
}

// special says in what a row that only measurement can win differs from the others.
func (s *scenario) special() string {
	switch {
	case s.foreign > 0:
		return ", foreign traffic"
	case s.idle > 0:
		return ", idle sessions"
	case s.halvings == 1:
		return ", one halves"
	case s.halvings > 1:
		return fmt.Sprintf(", one halves %d times", s.halvings)
	}
	return ""
}

func (s scenario) named(links string) scenario {
	s.name = fmt.Sprintf("%s, %s, %.0f %%", s.sizes.name, links, s.load*100)
	return s
}
