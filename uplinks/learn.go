package uplinks

import (
	"math"
	"slices"
	"time"
)

// Path is what probes say of the way to the Internet at one moment.
type Path struct {
	Known bool
	RTT   time.Duration // of the latest answer
}

const (
	fullReadings = 8                     // in a row that queue, and an uplink counts as full
	peakReadings = 4                     // that a rate must last to prove a capacity
	leastQueue   = 15 * time.Millisecond // more of a round trip, and half as much again, is what only a queue adds
	routeChange  = 1.0 / 512             // part of a longer round trip that becomes the usual one with each reading
	limitChange  = routeChange / 12      // that of an uplink at its limit, where a queue may stand for long
	confidence   = time.Hour             // time constant of what is left of it
	fullFor      = 2 * time.Second       // after a queue was seen
	leastAnswers = 16_000                // bits per second that come in; probes alone are less
	steadiness   = 0.5                   // of the highest rate of a full uplink is the lowest one: chatter comes and goes
	nearLimit    = 0.9                   // of its capacity is carried by an uplink at its limit
	leastProof   = 256_000               // bits per second; less says nothing, however steady
	fading       = 15 * time.Minute      // time constant with which what was learned goes back to what is assumed
)

// Learner finds out what an uplink can carry from what it does carry: never less than it has, and no more than it does while
// packets queue. Nothing is sent for it. It is not safe for concurrent use.
type Learner struct {
	down, up direction
	last     Counters
	lastAt   time.Time
	usual    time.Duration // round trip
	full     int           // readings in a row that queued
	provedAt time.Time
	fullAt   time.Time
	received float64 // bits per second, at the latest reading
}

// direction is one of an uplink.
type direction struct {
	bits    float64 // per second, 0 while nothing is known
	assumed float64
	recent  [fullReadings]float64 // rates
	next    int                   // place of the next one
}

// NewLearner starts with what is assumed of an uplink, 0 where nothing is.
func NewLearner(assumed Capacity) *Learner {
	return &Learner{down: newDirection(assumed.Down), up: newDirection(assumed.Up)}
}

// Observe takes a reading, 250 ms after the last one.
func (l *Learner) Observe(now time.Time, c Counters, p Path) {
	elapsed := now.Sub(l.lastAt)
	if l.lastAt.IsZero() || c.RxBytes < l.last.RxBytes || c.TxBytes < l.last.TxBytes {
		l.last, l.lastAt = c, now
		return
	}
	if elapsed < minInterval {
		return
	}
	l.received = float64(c.RxBytes-l.last.RxBytes) * 8 / elapsed.Seconds()
	l.down.see(l.received)
	l.up.see(float64(c.TxBytes-l.last.TxBytes) * 8 / elapsed.Seconds())
	l.last, l.lastAt = c, now
	l.conclude(now, elapsed, l.queues(p))
}

// conclude learns from the latest rates. Bursts in one direction may hide which of the two is full, and so how much that carries, but not
// that one is.
func (l *Learner) conclude(now time.Time, elapsed time.Duration, queues bool) {
	if queues && (l.down.isSteady() || l.up.isSteady()) {
		l.fullAt = now
	}
	if d := l.fuller(); queues && d.isSteady() {
		d.settle()
		l.provedAt = now
		return
	}
	l.down.fade(elapsed)
	l.up.fade(elapsed)
}

// Receives reports whether sessions were answered at the latest reading, be it with acknowledgements alone.
func (l *Learner) Receives() bool { return l.received >= leastAnswers }

// Full reports whether the uplink was full just now: what waits or is lost there then is for what it carries.
func (l *Learner) Full(now time.Time) bool {
	return !l.fullAt.IsZero() && now.Sub(l.fullAt) < fullFor
}

// Estimate is what is known now.
func (l *Learner) Estimate(now time.Time) Estimate {
	e := Estimate{Capacity: Capacity{Up: uint64(l.up.bits), Down: uint64(l.down.bits)}}
	if !l.provedAt.IsZero() {
		e.Confidence = math.Exp(-float64(now.Sub(l.provedAt)) / float64(confidence))
	}
	return e
}

// queues reports whether the uplink has been full for a while.
func (l *Learner) queues(p Path) bool {
	if !p.Known {
		l.full = 0
		return false
	}
	if l.usual == 0 || p.RTT < l.usual {
		l.usual = p.RTT
	}
	extra, change := p.RTT-l.usual, routeChange
	if l.down.isAtLimit() || l.up.isAtLimit() {
		change = limitChange
	}
	l.usual += time.Duration(float64(extra) * change)
	if extra < leastQueue || extra < l.usual/2 {
		l.full = 0
		return false
	}
	l.full++
	return l.full >= fullReadings
}

// fuller is the direction that is more likely to be the one with the queue.
func (l *Learner) fuller() *direction {
	if l.up.used() > l.down.used() {
		return &l.up
	}
	return &l.down
}

func newDirection(assumed uint64) direction {
	return direction{bits: float64(assumed), assumed: float64(assumed)}
}

func (d *direction) see(rate float64) {
	d.recent[d.next] = rate
	d.next = (d.next + 1) % fullReadings
	lasting := math.Inf(1)
	for i := range peakReadings {
		lasting = min(lasting, d.recent[(d.next+fullReadings-1-i)%fullReadings])
	}
	d.bits = max(d.bits, lasting)
}

func (d *direction) used() float64 { return slices.Max(d.recent[:]) / max(d.bits, 1) }

// isSteady reports whether the rates are those of an uplink that is full.
func (d *direction) isSteady() bool {
	highest := slices.Max(d.recent[:])
	return highest >= leastProof && slices.Min(d.recent[:]) >= steadiness*highest
}

// isAtLimit reports whether all that the uplink can carry is carried, as far as is known.
func (d *direction) isAtLimit() bool { return d.used() >= nearLimit && d.isSteady() }

// fade moves the capacity towards what is assumed: what was learned may be wrong, and an uplink that nobody uses learns nothing. While no
// more is carried than was learned it is right.
func (d *direction) fade(elapsed time.Duration) {
	if d.bits < d.assumed && d.bits > 0 && !d.isAtLimit() {
		d.bits *= math.Pow(d.assumed/d.bits, float64(elapsed)/float64(fading))
	}
}

// settle moves the capacity half way to what a full link carries.
func (d *direction) settle() { d.bits += (slices.Max(d.recent[:]) - d.bits) / 2 }
