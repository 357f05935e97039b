package main

import (
	"time"

	"tapgw/policy"
	"tapgw/uplinks"
)

// What the daemon's control loop and gateway do with the real meters and learners.

// read takes a reading of every link.
func (w *world) read() {
	now := time.Unix(0, int64(w.now*float64(time.Second)))
	for i, l := range w.links {
		if l.down {
			continue
		}
		bytes := uint64((l.ours + l.others) / 8)
		path := uplinks.Path{Known: true, RTT: idlePath}
		if l.share() > 0 || l.foreign >= l.capacity {
			path.RTT += queueing
		}
		w.latency[i] = path.RTT
		w.learners[i].Observe(now, uplinks.Counters{RxBytes: bytes}, path)
		sessions, total := len(l.flows)+l.idle, uplinks.Counters{RxBytes: bytes}
		w.meters[i].Sample(now, total, w.learners[i].Estimate(now), sessions)
		w.meters[i].Contend(now, total, uplinks.Activity{Connections: sessions, Down: l.streams()})
	}
}

// listed are the links as the gateway lists them for a new session.
func (w *world) listed() []policy.Candidate {
	w.candidates = w.candidates[:0]
	for i, l := range w.links {
		if l.down && len(l.flows) == 0 { // noticed
			continue
		}
		sessions := len(l.flows) + l.idle
		w.candidates = append(w.candidates, policy.Candidate{
			ID: uint8(i), Weight: int(l.capacity / 1e6), Sessions: sessions, Capacity: w.capacities[i],
			Load: w.meters[i].Load(), Rate: w.meters[i].Expect(sessions), Latency: w.latency[i],
		})
	}
	return w.candidates
}
