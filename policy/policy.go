// Package policy chooses one of several candidates for a new session. It is pure and knows nothing of uplinks or
// translation: the same schedulers will choose real servers for inbound services.
package policy

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Candidate is one usable choice at the moment of a decision. IDs are distinct within one decision.
type Candidate struct {
	ID       uint8
	Weight   int           // configured share, below 1 counts as 1
	Tier     int           // lower is preferred
	Sessions int           // active sessions
	Capacity float64       // bits per second, > 0
	Load     float64       // utilisation of Capacity, 0 to 1 and beyond, with what was placed since the last reading
	Rate     float64       // bits per second that one more session may get
	Latency  time.Duration // of a round trip, 0 while it is not known
}

// Request is what a scheduler may know of the session to be placed.
type Request struct {
	Source uint64 // a hash of who asks
}

// Scheduler chooses among candidates of one tier. It may keep state, so calls need one lock around them.
type Scheduler interface {
	Name() string
	// clone is a scheduler that goes on as this one would, without changing it.
	clone() Scheduler
	// Pick returns an index into c, which holds 1 to 256 candidates. It must not allocate, change c or keep it.
	Pick(r Request, c []Candidate) int
}

// Default is the scheduler used when nothing else is configured.
const Default = "least-load"

// constructors lists the schedulers in the order people read them, the default first.
var constructors = []func() Scheduler{
	newLeastLoad, newWeighted, newRoundRobin, newLeastSessions, newLowestLatency, newOverflow, newSourceHash, newFailover,
}

// Names lists the schedulers, the default first.
func Names() []string {
	names := make([]string, len(constructors))
	for i, build := range constructors {
		names[i] = build().Name()
	}
	return names
}

// New returns a fresh scheduler by name.
func New(name string) (Scheduler, error) {
	for _, build := range constructors {
		if s := build(); s.Name() == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("unknown scheduler %q: use one of %s", name, strings.Join(Names(), ", "))
}

// Clone returns a scheduler that decides as s would next, so that a decision can be explained without being made.
func Clone(s Scheduler) Scheduler { return s.clone() }

// Bounds of what is believed, so that no arithmetic below can overflow or meet a NaN.
const (
	maxCapacity = 1e15 // bits per second
	maxLoad     = 1e6
)

// capacity is c.Capacity made safe to divide by; nonsense counts as the smallest.
func (c *Candidate) capacity() float64 {
	if !(c.Capacity >= 1) { // NaN too
		return 1
	}
	return math.Min(c.Capacity, maxCapacity)
}

// load is c.Load made safe to compare; what cannot be a load counts as the highest, as it recommends nothing.
func (c *Candidate) load() float64 {
	if math.IsNaN(c.Load) || c.Load > maxLoad {
		return maxLoad
	}
	return math.Max(c.Load, 0)
}

// rate is c.Rate made safe to compare; what cannot be a rate counts as none.
func (c *Candidate) rate() float64 {
	if !(c.Rate >= 0) { // NaN too
		return 0
	}
	return math.Min(c.Rate, maxCapacity)
}

func (c *Candidate) weight() float64 { return float64(max(c.Weight, 1)) }
