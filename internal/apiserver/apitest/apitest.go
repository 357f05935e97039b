// Package apitest holds what the tests of the API's server share with those of the commands that ask it.
package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"tapgw/api"
)

// Daemon is a daemon in a fixed condition that remembers what it was told. With a feed of events beside it it is a backend
// of the API.
type Daemon struct {
	State api.Status // its uplinks are those that can be switched
	Table []api.Session
	Reply api.Why // to every question, with its endpoints
	YAML  string
	Past  []api.Event

	Pinned []api.Pin
	Err    error // of all changes, and of Config

	Probes []api.Probe // what the targets answer

	mu    sync.Mutex
	calls []string
}

// Status returns the state.
func (d *Daemon) Status() api.Status { return d.State }

// Sessions yields the table.
func (d *Daemon) Sessions(yield func(api.Session) bool) {
	for _, s := range d.Table {
		if !yield(s) {
			return
		}
	}
}

// RatedSessions yields the table, with the rates that it has.
func (d *Daemon) RatedSessions(_ context.Context, yield func(api.Session) bool) { d.Sessions(yield) }

// Describe leaves a session as it is in the table.
func (d *Daemon) Describe(*api.Session) {}

// Why gives the reply, or Err.
func (d *Daemon) Why(q api.Question) (api.Why, error) {
	w := d.Reply
	w.Proto, w.Remote = q.Proto, q.Remote
	if q.From.Addr().IsValid() {
		w.Inside, w.Host = q.From, false
	}
	return w, d.Err
}

// Pins returns the list.
func (d *Daemon) Pins() []api.Pin { return d.Pinned }

// Config returns the text.
func (d *Daemon) Config() ([]byte, error) { return []byte(d.YAML), d.Err }

// History is that of no uplink.
func (d *Daemon) History(span string) (h api.History, ok bool) {
	return h, slices.Contains(api.Spans(), span)
}

// PastEvents returns the list.
func (d *Daemon) PastEvents() []api.Event { return d.Past }

// SetUplink accepts the names of the state's uplinks.
func (d *Daemon) SetUplink(name string, enabled bool) error {
	return d.change(name, fmt.Sprintf("set %s %v", name, enabled))
}

// SetUsage accepts the names of the state's uplinks.
func (d *Daemon) SetUsage(name string, bytes uint64) error {
	return d.change(name, fmt.Sprintf("usage %s %d", name, bytes))
}

// Prefer accepts the names of the state's uplinks, and none.
func (d *Daemon) Prefer(name string) error {
	return d.change(name, fmt.Sprintf("prefer %q", name))
}

// SetMetered accepts the names of the state's uplinks.
func (d *Daemon) SetMetered(name string, m api.Metered) error {
	return d.change(name, fmt.Sprintf("metered %s %s", name, m))
}

// Pause does nothing.
func (d *Daemon) Pause(t time.Duration) error { return d.record("pause " + t.String()) }

// Resume does nothing.
func (d *Daemon) Resume() error { return d.record("resume") }

// Pin accepts the names of the state's uplinks.
func (d *Daemon) Pin(name string, pid int) error {
	return d.change(name, fmt.Sprintf("pin %s %d", name, pid))
}

// PinHost accepts the names of the state's uplinks.
func (d *Daemon) PinHost(p api.Pin) error {
	return d.change(p.Uplink, fmt.Sprintf("pin %s %q to %s, %v", p.Inside, p.Site, p.Uplink, !p.Until.IsZero()))
}

// Unpin does nothing.
func (d *Daemon) Unpin(inside netip.Addr, site string) error {
	return d.record(fmt.Sprintf("unpin %s %q", inside, site))
}

// Probe gives the answers, of one uplink where it is named.
func (d *Daemon) Probe(_ context.Context, name string) ([]api.Probe, error) {
	list := slices.DeleteFunc(slices.Clone(d.Probes), func(p api.Probe) bool { return name != "" && p.Uplink != name })
	return list, d.change(name, "probe "+name)
}

// change records a change of an uplink of the state, or of none in particular.
func (d *Daemon) change(uplink, call string) error {
	if d.Err == nil && uplink != "" && !d.knows(uplink) {
		return fmt.Errorf("%w: %q", api.ErrUnknownUplink, uplink)
	}
	return d.record(call)
}

func (d *Daemon) knows(name string) bool {
	return slices.ContainsFunc(d.State.Uplinks, func(u api.Uplink) bool { return u.Name == name })
}

// Reload does nothing.
func (d *Daemon) Reload() error { return d.record("reload") }

func (d *Daemon) record(call string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	return d.Err
}

// Calls are the changes that were asked for.
func (d *Daemon) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// Server is an API server; its own tests use this package, which therefore must not import it.
type Server interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// Start runs s until the test ends; stop ends it earlier.
func Start(t testing.TB, s Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}
