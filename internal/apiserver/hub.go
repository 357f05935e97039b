package apiserver

import (
	"slices"
	"sync"
	"time"

	"tapgw/api"
)

const (
	// followerBacklog is how many events a follower may lag behind.
	followerBacklog = 256
	// remembered is how many events are kept for followers who return.
	remembered = 256
)

// Hub numbers events, passes each to all followers and never waits for one: who lags too far behind is dropped. It is a Feed.
type Hub struct {
	mu        sync.Mutex
	followers map[chan api.Event]struct{}
	last      uint64 // number of the latest event
	past      []api.Event
}

// NewHub returns a hub without followers. Its numbers are larger than those of earlier hubs, unless these had a million events a second.
func NewHub() *Hub {
	return &Hub{followers: make(map[chan api.Event]struct{}), last: uint64(time.Now().UnixMicro())}
}

// Publish hands e to every follower, with a number of its own, and returns it with that.
func (h *Hub) Publish(e api.Event) api.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.ID = h.last
	if len(h.past) == remembered {
		h.past = slices.Delete(h.past, 0, 1)
	}
	h.past = append(h.past, e)
	for f := range h.followers {
		select {
		case f <- e:
		default:
			h.drop(f)
		}
	}
	return e
}

// Subscribe starts following; stop ends it and may be called more than once.
func (h *Hub) Subscribe() (events <-chan api.Event, stop func()) {
	f := make(chan api.Event, followerBacklog)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followers[f] = struct{}{}
	return f, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(f)
	}
}

// Missed returns the events after the one with that number, as far as they are remembered, and the number of the latest.
func (h *Hub) Missed(after uint64) (missed []api.Event, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.past {
		if e.ID > after {
			missed = append(missed, e)
		}
	}
	return missed, h.last
}

func (h *Hub) drop(f chan api.Event) {
	if _, there := h.followers[f]; there {
		delete(h.followers, f)
		close(f)
	}
}
