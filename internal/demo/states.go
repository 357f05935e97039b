package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tapgw/api"
)

// stateWithin bounds the wait for an uplink's state.
const stateWithin = 10 * time.Second

// states follows what the gateway says about its uplinks.
type states struct {
	mu      sync.Mutex
	known   map[string]state
	changed chan struct{} // closed at the next change
}

// state is whether an uplink takes new sessions, and since when by our clock.
type state struct {
	usable bool
	since  time.Time
}

func newStates() *states {
	return &states{known: make(map[string]state), changed: make(chan struct{})}
}

func (s *states) note(e api.Event) {
	if e.Uplink == "" || e.To == "" {
		return
	}
	u := api.Uplink{State: e.To}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, seen := s.known[e.Uplink]
	if seen && old.usable == u.Usable() {
		return
	}
	s.known[e.Uplink] = state{u.Usable(), time.Now()}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *states) of(name string) (now state, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[name], s.changed
}

// await waits until an uplink is usable, or is not.
func (s *states) await(ctx context.Context, name string, usable bool) error {
	tooLate := fmt.Errorf("uplink %s did not become usable=%t within %s", name, usable, stateWithin)
	ctx, cancel := context.WithTimeoutCause(ctx, stateWithin, tooLate)
	defer cancel()
	for {
		now, changed := s.of(name)
		if !now.since.IsZero() && now.usable == usable {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
