package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
)

// routeChange is a route that came or went.
type routeChange struct {
	netlink.RouteUpdate
	at time.Time
}

// routeRecord is what has become of a host's routes since it was begun.
type routeRecord struct {
	t    testing.TB
	mu   sync.Mutex
	list []routeChange
}

// recordRoutes follows the routes of ns until the test ends, those that are there first.
func recordRoutes(t testing.TB, ns *lab.Namespace) *routeRecord {
	t.Helper()
	updates, done := make(chan netlink.RouteUpdate, 1024), make(chan struct{})
	options := netlink.RouteSubscribeOptions{ListExisting: true}
	labtest.Must(t, ns.Do(func() error { return netlink.RouteSubscribeWithOptions(updates, done, options) }))
	t.Cleanup(func() { close(done) })
	r := &routeRecord{t: t}
	go func() {
		for u := range updates {
			r.mu.Lock()
			r.list = append(r.list, routeChange{u, time.Now()})
			r.mu.Unlock()
		}
	}()
	r.await("the capture", time.Time{}, func(c routeChange) bool { return c.Type == unix.RTM_NEWROUTE && captures(c) })
	return r
}

// isDefault is of routes that the kernel looks at for everything.
func isDefault(c routeChange) bool {
	return c.Table == unix.RT_TABLE_MAIN && c.Dst != nil && c.Dst.IP.IsUnspecified() && c.Dst.IP.To4() != nil
}

// captures is of those into the TAP.
func captures(c routeChange) bool { return isDefault(c) && c.Protocol == uplinks.Protocol }

// await waits for a change of since or later, and says when it was.
func (r *routeRecord) await(what string, since time.Time, match func(routeChange) bool) (at time.Time) {
	r.t.Helper()
	eventually(r.t, what, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.IndexFunc(r.list, func(c routeChange) bool { return !c.at.Before(since) && match(c) })
		if i >= 0 {
			at = r.list[i].at
		}
		return i >= 0
	})
	return at
}

// uncaptured is for how long at most no default route led into the TAP.
func (r *routeRecord) uncaptured() (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	metrics, since := map[int]bool{}, time.Time{}
	for _, c := range r.list {
		if !captures(c) {
			continue
		}
		if c.Type == unix.RTM_NEWROUTE {
			metrics[c.Priority] = true
		} else if delete(metrics, c.Priority); len(metrics) == 0 {
			since = c.at
		}
		if len(metrics) > 0 && !since.IsZero() {
			longest, since = max(longest, c.at.Sub(since)), time.Time{}
		}
	}
	return longest
}
