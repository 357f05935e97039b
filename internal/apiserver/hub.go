package apiserver

import (
	"sync"

	"tapgw/api"
)

// followerBacklog is how many events a follower may lag behind.
const followerBacklog = 256

// Hub passes each event to all followers and never waits for one: who lags too far behind is dropped. It is a Feed.
type Hub struct {
	mu        sync.Mutex
	followers map[chan api.Event]struct{}
}

// NewHub returns a hub without followers.
func NewHub() *Hub { return &Hub{followers: make(map[chan api.Event]struct{})} }

// Publish hands e to every follower.
func (h *Hub) Publish(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.followers {
		select {
		case f <- e:
		default:
			h.drop(f)
		}
	}
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

func (h *Hub) drop(f chan api.Event) {
	if _, there := h.followers[f]; there {
		delete(h.followers, f)
		close(f)
	}
}
