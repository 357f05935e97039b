package daemon

import (
	"maps"
	"sync"
	"time"

	"tapgw/internal/metrics"
	"tapgw/uplinks"
)

// tally counts, for the metrics, what nothing else keeps.
type tally struct {
	mu     sync.Mutex
	kinds  map[string]uint64 // of events
	sides  map[side]sideTally
	reload metrics.Reload
}

// sideTally is what has happened to one side of an uplink since that became known.
type sideTally struct {
	entered      map[string]uint64 // by state
	failovers    uint64
	good, failed uint64 // rounds of probes
	lastGood     time.Time
}

func newTally(started time.Time) *tally {
	return &tally{kinds: make(map[string]uint64), sides: make(map[side]sideTally), reload: metrics.Reload{Success: started}}
}

// happened counts an event.
func (t *tally) happened(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[kind]++
}

// changed counts what became of a side; all of an uplink that is new begins with nothing, as it may have the number of an old one.
func (t *tally) changed(e uplinks.Event, s *uplinks.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Kind == uplinks.Appeared {
		for _, f := range uplinks.Families {
			delete(t.sides, side{e.ID, f})
		}
	}
	if e.Kind != uplinks.StateChanged {
		return
	}
	one := t.sides[side{e.ID, e.Family}]
	if one.entered == nil {
		one.entered = make(map[string]uint64)
	}
	one.entered[string(e.To)]++
	if e.From.Usable() && !e.To.Usable() && anotherWorks(s, e) {
		one.failovers++
	}
	t.sides[side{e.ID, e.Family}] = one
}

// anotherWorks reports whether sessions can take another uplink than the one that an event is about.
func anotherWorks(s *uplinks.Snapshot, e uplinks.Event) bool {
	for _, u := range s.Uplinks {
		if u.ID != e.ID && u.On(e.Family).State.Usable() {
			return true
		}
	}
	return false
}

// probed counts a round of probes of a side by when its last good round ended.
func (t *tally) probed(at side, good time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.sides[at]
	if good.After(one.lastGood) {
		one.good, one.lastGood = one.good+1, good
	} else {
		one.failed++
	}
	t.sides[at] = one
}

// reloaded notes what became of a reload.
func (t *tally) reloaded(err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reload.Failed = err != nil; err == nil {
		t.reload.Success = now
	}
}

// of returns what was counted of a side.
func (t *tally) of(at side) sideTally {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.sides[at]
	one.entered = maps.Clone(one.entered)
	return one
}

// events returns how many there were of each kind, and what became of reloads.
func (t *tally) events() (map[string]uint64, metrics.Reload) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.kinds), t.reload
}
