package e2e

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tapgw/internal/lab"
)

// visit is one new session: a datagram from a socket of its own, and its answer.
type visit struct {
	begun   time.Time
	outside netip.Addr // as the server saw it
	err     error
}

// visits begin new sessions at a steady pace.
type visits struct {
	t     testing.TB
	stop  func() []visit
	mu    sync.Mutex
	list  []visit
	fresh chan struct{} // closed when a visit has ended
}

// keepVisiting lets ns begin sessions until stop, which returns all of them.
func keepVisiting(t testing.TB, ns *lab.Namespace) *visits {
	t.Helper()
	return keepVisitingOver(overIPv4, t, ns)
}

// keepVisitingOver is keepVisiting of a family.
func keepVisitingOver(f *family, t testing.TB, ns *lab.Namespace) *visits {
	t.Helper()
	v := &visits{t: t, fresh: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	v.stop = func() []visit {
		cancel()
		running.Wait()
		return v.list
	}
	t.Cleanup(func() { v.stop() })
	running.Go(func() {
		pace := time.NewTicker(visitPace)
		defer pace.Stop()
		for n := 0; ; n++ {
			running.Go(func() {
				v.end(visitFrom(uint16(firstVisit+visited.Add(1)%numVisits), ns, f.servers[n%len(f.servers)], visitPatience))
			})
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
		}
	})
	return v
}

func (v *visits) end(one visit) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = append(v.list, one)
	close(v.fresh)
	v.fresh = make(chan struct{})
}

// Ports of visits in a row, below those that the kernel chooses: who used one before might be bound to where that was.
const firstVisit, numVisits = 10_000, 22_000

// visited counts the visits of all tests, for no host to use a port twice.
var visited atomic.Uint32

func visitFor(ns *lab.Namespace, server netip.Addr, limit time.Duration) visit {
	return visitFrom(0, ns, server, limit)
}

// visitFrom is visitFor from a port; from any where somebody has it.
func visitFrom(port uint16, ns *lab.Namespace, server netip.Addr, limit time.Duration) (v visit) {
	f := familyOf(server)
	conn, err := ns.ListenPacket(f.udp, strings.TrimSuffix(f.any, "0")+strconv.Itoa(int(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		conn, err = ns.ListenPacket(f.udp, f.any)
	}
	v.begun = time.Now()
	if err != nil {
		v.err = err
		return v
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	outside, err := lab.AskUDP(ctx, conn, server, "visit")
	v.outside, v.err = outside.Addr(), err
	return v
}

// by waits until a session begun since went by that outside address, and says when it began.
func (v *visits) by(outside netip.Addr, since time.Time) time.Time {
	v.t.Helper()
	return v.await(outside.String(), since, func(a netip.Addr) bool { return a == outside })
}

// byAny is by for whatever outside address.
func (v *visits) byAny(since time.Time) {
	v.t.Helper()
	v.await("any uplink", since, netip.Addr.IsValid)
}

func (v *visits) await(what string, since time.Time, fits func(netip.Addr) bool) time.Time {
	v.t.Helper()
	deadline := time.After(patience)
	for {
		v.mu.Lock()
		fresh := v.fresh
		at := slices.IndexFunc(v.list, func(one visit) bool { return one.err == nil && !one.begun.Before(since) && fits(one.outside) })
		if at >= 0 {
			defer v.mu.Unlock()
			return v.list[at].begun
		}
		v.mu.Unlock()
		select {
		case <-fresh:
		case <-deadline:
			v.t.Fatalf("no session by %s", what)
		}
	}
}

// expectOutage fails the test if a session failed that was not begun in the outage, and tells how long it was.
func expectOutage(t testing.TB, list []visit, from time.Time, bound time.Duration) {
	t.Helper()
	const inFlight = 200 * time.Millisecond // a session may have begun before and be cut
	var last time.Duration
	failed := 0
	for _, v := range list {
		if v.err == nil {
			continue
		}
		failed++
		after := v.begun.Sub(from)
		last = max(last, after)
		if after < -inFlight || after > bound {
			t.Errorf("a session begun %s after the fault failed: %v", after.Round(time.Millisecond), v.err)
		}
	}
	t.Logf("%d sessions, %d failed, the last one begun %s after the fault", len(list), failed, last.Round(time.Millisecond))
}

// onlyBy fails the test if a session begun in a time did not go by an uplink, or there was none at all.
func (v *visits) onlyBy(u *lab.Uplink, begun, ended time.Time) {
	v.t.Helper()
	v.only(begun, ended, func(a netip.Addr) bool { return a == u.Addr() })
}

// only is onlyBy for outside addresses that fit.
func (v *visits) only(begun, ended time.Time, fits func(netip.Addr) bool) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, one := range v.list {
		if one.err != nil || !one.begun.After(begun) || !one.begun.Before(ended) {
			continue
		}
		n++
		if !fits(one.outside) {
			v.t.Errorf("a session begun %s after went by %s", one.begun.Sub(begun), one.outside)
		}
	}
	if n == 0 {
		v.t.Errorf("no session within %s", ended.Sub(begun))
	}
}
