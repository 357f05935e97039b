package main

import (
	"context"
	"strings"
	"time"
)

// settings say how long to measure.
type settings struct {
	rounds      int
	warmUp      time.Duration // of each measurement, not counted
	bulk        time.Duration
	flood       time.Duration
	connections time.Duration
	samples     int // of latency
	sessions    int // of memory
}

var (
	thorough = settings{rounds: 5, warmUp: 300 * time.Millisecond, bulk: 2 * time.Second, flood: 1500 * time.Millisecond,
		connections: 3 * time.Second, samples: 400, sessions: 100_000}
	quick = settings{rounds: 1, warmUp: 50 * time.Millisecond, bulk: 200 * time.Millisecond, flood: 200 * time.Millisecond,
		connections: 200 * time.Millisecond, samples: 20, sessions: 10_000}
)

// measure loads a peer and returns one value for each line of its task.
type measure func(ctx context.Context, p *peer, s settings) ([]float64, error)

// task is one measurement of one peer; line is one line of the report.
type (
	task struct {
		name    string
		lines   []line
		measure measure // nil for memory, which needs a peer of its own and is measured once
	}
	line struct {
		label, unit string
		bar         float64 // least ratio to the kernel, 0 for none
	}
)

// The ratios to the kernel that the project promises.
const (
	barBulk        = 0.6
	barPackets     = 0.6
	barConnections = 0.85
)

var tasks = []task{
	{"memory", []line{{"session, added", "B", 0}, {"session, of all memory", "B", 0}}, nil},
	{"bulk-lan-up", []line{{"TCP LAN→Internet", "Gbit/s", barBulk}}, bulk(false, false)},
	{"bulk-lan-down", []line{{"TCP Internet→LAN", "Gbit/s", barBulk}}, bulk(true, false)},
	{"bulk-host-up", []line{{"TCP host→Internet", "Gbit/s", barBulk}}, bulk(false, true)},
	{"bulk-host-down", []line{{"TCP Internet→host", "Gbit/s", barBulk}}, bulk(true, true)},
	{"udp-1", []line{{"UDP 60 B, 1 flow", "Mpkt/s", barPackets}}, flood(1)},
	{"udp-1000", []line{{"UDP 60 B, 1,000 flows", "Mpkt/s", barPackets}}, flood(1000)},
	{"udp-30000", []line{{"UDP 60 B, 30,000 flows", "Mpkt/s", barPackets}}, flood(30_000)},
	{"connections", []line{{"new connections", "1/s", barConnections}}, connections},
	{"latency", []line{{"connect+byte p50", "µs", 0}, {"connect+byte p99", "µs", 0}}, latency},
}

// chosen returns the tasks whose name begins with one of the comma-separated words.
func chosen(only string) (some []task) {
	for _, t := range tasks {
		for word := range strings.SplitSeq(only, ",") {
			if strings.HasPrefix(t.name, word) {
				some = append(some, t)
				break
			}
		}
	}
	return some
}
