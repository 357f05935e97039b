package daemon

import (
	"sync"
	"time"

	"tapgw/probe"
)

const (
	// lookEvery is how often the uplinks' devices are looked at while something goes on, for their carriers: the kernel tells of a
	// lost one up to a second late (linkwatch) when it told of another shortly before.
	lookEvery = 125 * time.Millisecond
	// restEvery is how often the pace ticks while nothing does: when the uplinks are probed anyway, as each tick wakes an idle machine up.
	restEvery = probe.DefaultInterval
	// restAfter is how long nothing must have gone on.
	restAfter = 3 * time.Second
	// restBits a second are what an uplink may carry while nothing goes on: probes, keepalives and chatter of the LAN.
	restBits = 64e3
)

// rhythm is after how many ticks something is due.
type rhythm struct {
	look     int // at the uplinks' devices
	sample   int // the load
	remember int // rates and health
	check    int // all else, which costs many times as much as a look
}

var (
	quick = rhythm{look: 1, sample: 2, remember: int(rememberEvery / lookEvery), check: int(checkEvery / lookEvery)}
	slow  = rhythm{look: 2, sample: 2, remember: 2, check: 3}
)

// rhythm has ticks be slow where nothing has gone on for long.
func (p *pace) rhythm() rhythm {
	if p.rest() {
		return slow
	}
	return quick
}

// pace is when to look again. What makes it quick may come from any goroutine.
type pace struct {
	beat
	follow func(resting bool) // is told of every change

	mu      sync.Mutex
	stirred time.Time // when something went on last
	resting bool
}

func newPace(follow func(resting bool)) (*pace, error) {
	b, err := newBeat()
	if err != nil {
		return nil, err
	}
	return &pace{beat: b, follow: follow, stirred: time.Now()}, b.every(lookEvery)
}

// stir has looks be quick for a while, as something goes on, and reports whether they were not.
func (p *pace) stir() (rested bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stirred = time.Now()
	rested = p.resting
	if rested {
		p.resting = p.every(lookEvery) != nil
		p.follow(p.resting)
	}
	return rested
}

// rest has looks be slow where nothing has gone on for long, and reports whether they are.
func (p *pace) rest() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.resting && time.Since(p.stirred) > restAfter {
		p.resting = p.every(restEvery) == nil
		p.follow(p.resting)
	}
	return p.resting
}

// stir says that something goes on.
func (d *Daemon) stir() {
	if p := d.pace.Load(); p != nil && p.stir() {
		poke(d.checkDue)
	}
}
