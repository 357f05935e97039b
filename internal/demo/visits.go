package demo

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	visitEvery = 50 * time.Millisecond
	visitLimit = 3 * time.Second // after which a session counts as failed
)

// visit is one short session: a connection of its own, one request, its answer.
type visit struct {
	began  time.Time
	uplink int // by which the server saw it; meaningless when it failed
	failed bool
}

// visits is a steady stream of short sessions.
type visits struct {
	client   *http.Client
	uplinkOf func(netip.Addr) int

	mu   sync.Mutex
	done []visit // in the order of their ends
}

func newVisits(s *stage) *visits {
	return &visits{client: s.net.Hosts[0].HTTPClient(), uplinkOf: s.uplinkOf}
}

// run begins a session every 50 ms until enough is closed, and returns when the last one has ended, or ctx.
func (v *visits) run(ctx context.Context, enough <-chan struct{}) {
	var open sync.WaitGroup
	defer open.Wait()
	tick := time.NewTicker(visitEvery)
	defer tick.Stop()
	for {
		select {
		case <-enough:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			open.Go(func() { v.one(ctx) })
		}
	}
}

func (v *visits) one(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	uplink := -1
	resp, err := get(ctx, v.client, "/whoami")
	if err == nil {
		uplink, err = seenBy(resp, v.uplinkOf)
		resp.Body.Close()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done = append(v.done, visit{began, uplink, err != nil})
}

// all returns the sessions that have ended.
func (v *visits) all() []visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.done[:len(v.done):len(v.done)]
}

// firstBy finds the earliest good session by an uplink that began at a time or later.
func firstBy(list []visit, uplink int, from time.Time) (began time.Time, found bool) {
	for _, v := range list {
		if !v.failed && v.uplink == uplink && !v.began.Before(from) && (!found || v.began.Before(began)) {
			began, found = v.began, true
		}
	}
	return began, found
}

// tally counts the sessions that began from one time until before another; the zero time is no limit.
func tally(list []visit, from, to time.Time) (good [count]int, failed int) {
	for _, v := range list {
		switch {
		case v.began.Before(from), !to.IsZero() && !v.began.Before(to):
		case v.failed:
			failed++
		default:
			good[v.uplink]++
		}
	}
	return good, failed
}
