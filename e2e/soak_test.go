package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Bounds of what the daemon may have more of after a soak: room for pools and caches, none for a leak with every fault.
const (
	soakShort      = 5 * time.Second
	soakGoroutines = 5
	soakFiles      = 3
	soakMemory     = 96 << 20 // bytes: buffers and the table are counted once they were touched
)

// trouble is something that happens to a gateway and ends again.
type trouble struct {
	name      string
	cause     func(w world, u *lab.Uplink) error
	end       func(w world, u *lab.Uplink) error
	lastsOver time.Duration // so that the probes see it
}

func nothing(world, *lab.Uplink) error { return nil }

func damaged(name string, do func(*netlink.Handle) error) trouble {
	return trouble{name: name, end: nothing, cause: func(w world, _ *lab.Uplink) error {
		if err := do(w.Gateway.Handle()); err != nil {
			w.t.Logf("nothing to damage yet: %v", err) // the damage before is not repaired yet
		}
		return nil
	}}
}

func troubles() []trouble {
	list := []trouble{
		{"cut", func(_ world, u *lab.Uplink) error { return u.Link.Cut() }, func(_ world, u *lab.Uplink) error { return u.Link.Mend() }, 0},
		{"black hole", func(_ world, u *lab.Uplink) error { return u.SetFaults(lab.Blackhole) },
			func(_ world, u *lab.Uplink) error { return u.SetFaults() }, blackholeBound},
		{"silence", func(_ world, u *lab.Uplink) error { return u.Silence(true) },
			func(_ world, u *lab.Uplink) error { return u.Silence(false) }, 0},
		{"loss", func(_ world, u *lab.Uplink) error { return u.SetFaults(lab.RandomLoss(0.05)) },
			func(_ world, u *lab.Uplink) error { return u.SetFaults() }, 0},
		{"unplugged", func(_ world, u *lab.Uplink) error { return u.Unplug() }, func(_ world, u *lab.Uplink) error { return u.Replug() }, 0},
		{"renumbered", renumber("100.64.%d.9/24"), renumber("100.64.%d.2/24"), 0},
		{"no default route", func(_ world, u *lab.Uplink) error { return u.RemoveDefault() },
			func(_ world, u *lab.Uplink) error { return u.AddRoutes() }, 0},
		{"small MTU", func(_ world, u *lab.Uplink) error { return u.Link.SetMTU(1280) },
			func(_ world, u *lab.Uplink) error { return u.Link.SetMTU(1500) }, 0},
		{"paused", func(w world, _ *lab.Uplink) error { return w.daemon.Signal(syscall.SIGSTOP) },
			func(w world, _ *lab.Uplink) error { return w.daemon.Signal(syscall.SIGCONT) }, 0},
		{"reload", func(w world, _ *lab.Uplink) error { return w.daemon.Signal(syscall.SIGHUP) }, nothing, 0},
		{"disabled", func(w world, u *lab.Uplink) error { return w.client.SetUplink(w.t.Context(), u.Device, false) },
			func(w world, u *lab.Uplink) error { return w.client.SetUplink(w.t.Context(), u.Device, true) }, 0},
	}
	for _, d := range damages {
		list = append(list, damaged(d.name, d.do))
	}
	return list
}

func renumber(pattern string) func(world, *lab.Uplink) error {
	return func(_ world, u *lab.Uplink) error {
		near := netip.MustParsePrefix(fmt.Sprintf(pattern, u.Number))
		return u.Renumber(near, u.Link.Far.Prefix)
	}
}

// TestSoak lets troubles come in random order over steady traffic. Afterwards all is well, nothing has leaked, and a clean
// stop leaves no trace. SOAK_DURATION is how long, SOAK_SEED repeats an order.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, seed := soakSettings(t)
	topology := labtest.Build(t, lab.Options{RPFilter: 1})
	labtest.Servers(t, topology)
	before := labtest.Snapshot(t, topology.Gateway)
	g := start(t, topology.Gateway, "probe: {degraded: {flapping: 1s}}\n") // all is to be forgiven in the end
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	online(t, w.lan)

	used := w.resources()
	traffic := w.steadyTraffic()
	random := rand.New(rand.NewPCG(seed, 0))
	list := troubles()
	for over := time.Now().Add(length); time.Now().Before(over); {
		one, u := list[random.IntN(len(list))], topology.Uplinks[random.IntN(len(topology.Uplinks))]
		t.Logf("%s on %s", one.name, u.Device)
		labtest.Must(t, one.cause(w, u))
		<-time.After(max(one.lastsOver, time.Duration(random.Int64N(int64(500*time.Millisecond))))) // as long as it happens to last
		labtest.Must(t, one.end(w, u))
	}
	w.recovers()
	traffic()
	w.comparesTo(used)
	g.stop()
	if g.err != nil {
		t.Errorf("exit: %v", g.err)
	}
	labtest.Unchanged(t, topology.Gateway, before)
}

// soakSettings reads the environment.
func soakSettings(t testing.TB) (length time.Duration, seed uint64) {
	t.Helper()
	length, seed = soakShort, uint64(time.Now().UnixNano())
	var err, bad error
	if s := os.Getenv("SOAK_DURATION"); s != "" {
		length, err = time.ParseDuration(s)
	}
	if s := os.Getenv("SOAK_SEED"); s != "" {
		seed, bad = strconv.ParseUint(s, 10, 64)
	}
	labtest.Must(t, errors.Join(err, bad))
	t.Logf("SOAK_DURATION=%s SOAK_SEED=%d", length, seed)
	return length, seed
}

// steadyTraffic keeps sessions, downloads and uploads going. What fails under a fault is begun anew; what arrives must be
// right. The function it returns ends it.
func (w world) steadyTraffic() (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	for i, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		server := lab.ServerAddrs[i]
		for _, transfer := range []func(context.Context, netip.Addr, uint64, uint64) (lab.Transfer, error){ns.BulkDownload, ns.BulkUpload} {
			running.Go(func() {
				for n := uint64(1); ctx.Err() == nil; n++ {
					limit, done := context.WithTimeout(ctx, 2*time.Second)
					if _, err := transfer(limit, server, n, 4<<20); errors.Is(err, lab.ErrCorrupt) {
						w.t.Error(err)
					}
					done()
				}
			})
		}
	}
	visits := keepVisiting(w.t, w.lan)
	return func() {
		cancel()
		running.Wait()
		list, failed := visits.stop(), 0
		for _, v := range list {
			if errors.Is(v.err, lab.ErrCorrupt) {
				w.t.Error(v.err)
			}
			if v.err != nil {
				failed++
			}
		}
		w.t.Logf("%d sessions begun, %d failed", len(list), failed)
	}
}

// recovers waits until every uplink is up, carries sessions, and all of them succeed.
func (w world) recovers() {
	w.t.Helper()
	begun := time.Now()
	eventually(w.t, "recovery", func() bool {
		for _, u := range w.status().Uplinks {
			if u.State != api.StateUp {
				return false
			}
		}
		return true
	})
	if took := time.Since(begun); took > returnBound {
		w.t.Errorf("all uplinks are up only after %s", took)
	}
	for range 20 {
		if v := visitFor(w.lan, lab.ServerAddrs[0], visitPatience); v.err != nil {
			w.t.Errorf("after the last fault: %v", v.err)
		}
	}
	online(w.t, w.Gateway)
	online(w.t, w.lan)
}

// resources is what a daemon occupies.
type resources struct{ goroutines, files, memory int }

func (w world) resources() resources {
	w.t.Helper()
	dir := fmt.Sprintf("/proc/%d", w.daemon.PID())
	files, err := os.ReadDir(dir + "/fd")
	labtest.Must(w.t, err)
	statm, err := os.ReadFile(dir + "/statm")
	labtest.Must(w.t, err)
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	labtest.Must(w.t, err)
	return resources{int(w.metric("go_goroutines")), len(files), pages * os.Getpagesize()}
}

// comparesTo waits until the daemon occupies about as much as before.
func (w world) comparesTo(before resources) {
	w.t.Helper()
	var now resources
	deadline := time.Now().Add(patience)
	for {
		now = w.resources()
		ok := now.goroutines <= before.goroutines+soakGoroutines && now.files <= before.files+soakFiles && now.memory <= before.memory+soakMemory
		if ok || time.Now().After(deadline) {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	w.t.Logf("before %+v, after %+v", before, now)
	if now.goroutines > before.goroutines+soakGoroutines || now.files > before.files+soakFiles || now.memory > before.memory+soakMemory {
		w.t.Error("the daemon has grown")
	}
}
