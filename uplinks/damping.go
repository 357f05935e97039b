package uplinks

import (
	"fmt"
	"math"
	"time"
)

// How often a side may go down before new sessions avoid it (RFC 2439, with the proportions that routers use).
const (
	avoidedAbove = 2    // so that one must go down a third time in quick succession
	reusedBelow  = 0.75 // so that two half-lives of being up end the doubt that three falls made
	maxFalls     = 12   // which take four half-lives
	// stumble is how long a side may be down for that not to count: a lease that is renewed the rude way takes less.
	stumble = 100 * time.Millisecond
)

// damping remembers how often a side has gone down: a count that halves in each half-life.
type damping struct {
	falls   float64
	at      time.Time // that falls is of
	fell    time.Time // when it went down, zero while it is not
	avoided bool
}

// follow takes a change of state.
func (d *damping) follow(now time.Time, from, to State, halfLife time.Duration) {
	switch {
	case from.Usable() && to == Down:
		d.fell = now
	case to.Usable() && !d.fell.IsZero():
		if now.Sub(d.fell) >= stumble {
			d.fall(now, halfLife)
		}
		d.fell = time.Time{}
	}
}

// fall counts one. Without a half-life nothing is counted.
func (d *damping) fall(now time.Time, halfLife time.Duration) {
	if halfLife <= 0 {
		return
	}
	d.decay(now, halfLife)
	d.falls = min(d.falls+1, maxFalls)
	d.avoided = d.avoided || d.falls > avoidedAbove
}

func (d *damping) decay(now time.Time, halfLife time.Duration) {
	d.falls *= math.Exp2(-max(now.Sub(d.at), 0).Seconds() / halfLife.Seconds())
	d.at = now
}

// doubt is why a side that works is avoided all the same, one clause for people; "" when it is not.
func (d *damping) doubt(now time.Time, halfLife time.Duration) string {
	if !d.avoided {
		return ""
	}
	if halfLife > 0 {
		d.decay(now, halfLife)
	}
	if halfLife <= 0 || d.falls < reusedBelow {
		*d = damping{}
		return ""
	}
	left := time.Duration(math.Log2(d.falls/reusedBelow) * float64(halfLife))
	return fmt.Sprintf("goes down again and again: spared for another %s", max(left.Round(time.Second), time.Second))
}
