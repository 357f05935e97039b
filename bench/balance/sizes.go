package main

import (
	"math"
	"math/rand/v2"
)

// sizes is a published distribution of flow sizes: the share of flows that are no larger.
type sizes struct {
	name   string
	bytes  []float64
	shares []float64
}

// The distributions, with their sources.
var (
	// DCTCP (Alizadeh et al., SIGCOMM 2010), as in HKUST's TrafficGenerator.
	webSearch = sizes{"web search",
		[]float64{1e3, 10e3, 20e3, 30e3, 50e3, 80e3, 200e3, 1e6, 2e6, 5e6, 10e6, 30e6},
		[]float64{0, .15, .20, .30, .40, .53, .60, .70, .80, .90, .97, 1}}
	// VL2 (Greenberg et al., SIGCOMM 2009).
	dataMining = sizes{"data mining",
		[]float64{100, 180, 216, 560, 900, 1100, 1870, 3160, 10e3, 400e3, 3.16e6, 100e6, 1e9},
		[]float64{0, .1, .2, .3, .4, .5, .6, .7, .8, .9, .95, .98, 1}}
	// A month of a campus with 8,000 students (Jurkiewicz et al., AGH 2015).
	campus = sizes{"AGH campus",
		[]float64{40, 64, 128, 256, 512, 1024, 1500, 4096, 10e3, 100e3, 1e6, 10e6, 100e6, 1e9, 3e9},
		[]float64{0, .0431, .3234, .5687, .7111, .7904, .8261, .8973, .9410, .9840, .99605, .999165, .999876, .999997, 1}}
)

// draw returns the size in bits of a random flow: between two points, sizes are spread evenly by their logarithm.
func (s *sizes) draw(r *rand.Rand) float64 {
	share := r.Float64()
	i := 1
	for s.shares[i] < share {
		i++
	}
	part := (share - s.shares[i-1]) / (s.shares[i] - s.shares[i-1])
	return 8 * s.bytes[i-1] * math.Pow(s.bytes[i]/s.bytes[i-1], part)
}

// mean is the mean size in bits.
func (s *sizes) mean() float64 {
	sum := 0.0
	for i := 1; i < len(s.bytes); i++ {
		low, high := s.bytes[i-1], s.bytes[i]
		sum += (s.shares[i] - s.shares[i-1]) * (high - low) / math.Log(high/low)
	}
	return 8 * sum
}
