// Package labtest gives tests the laboratory with cleaning up and failure handling.
package labtest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
)

// timeout bounds everything a test does in the laboratory.
const timeout = 60 * time.Second

// RequireRoot skips the test without root, or fails it where the CI variable says that nothing may be skipped.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("network namespaces need root: run this job as root")
	}
	t.Skip("network namespaces need root: run the test as root")
}

// Build makes a topology that lives as long as the test.
func Build(t testing.TB, o lab.Options) *lab.Topology {
	t.Helper()
	RequireRoot(t)
	topology, err := lab.Build(o)
	Must(t, err)
	t.Cleanup(func() { Must(t, topology.Close()) })
	return topology
}

// Servers starts the standard servers in the Internet of a topology.
func Servers(t testing.TB, topology *lab.Topology) {
	t.Helper()
	servers, err := lab.StartServers(topology.Internet)
	Must(t, err)
	t.Cleanup(func() { Must(t, servers.Close()) })
}

// Namespace makes a namespace that lives as long as the test.
func Namespace(t testing.TB, name string) *lab.Namespace {
	t.Helper()
	RequireRoot(t)
	n, err := lab.New(name)
	Must(t, err)
	t.Cleanup(func() { Must(t, n.Close()) })
	return n
}

// Context returns a context that ends with the test or after a minute.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// Capture records on a device until the test ends, and fails the test if a bad packet passed.
func Capture(t testing.TB, n *lab.Namespace, device string) *lab.Capture {
	t.Helper()
	c, err := n.StartCapture(device, nil)
	Must(t, err)
	t.Cleanup(func() {
		report, err := c.Stop()
		Must(t, err)
		for _, p := range report.BadOnes {
			t.Errorf("%s:%s: bad packet: %s", n.Name(), device, p)
		}
	})
	return c
}

// Snapshot dumps the state of a namespace.
func Snapshot(t testing.TB, n *lab.Namespace) lab.State {
	t.Helper()
	state, err := lab.Dump(n)
	Must(t, err)
	return state
}

// Unchanged fails the test where the state of a namespace differs from an earlier snapshot.
func Unchanged(t testing.TB, n *lab.Namespace, before lab.State) {
	t.Helper()
	removed, added := lab.Diff(before, Snapshot(t, n))
	if len(removed)+len(added) > 0 {
		t.Errorf("state of %s changed:\n- %s\n+ %s", n.Name(), strings.Join(removed, "\n- "), strings.Join(added, "\n+ "))
	}
}

// Must fails the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Ended returns what a goroutine reports when it ends, and fails the test where that takes too long.
func Ended(t testing.TB, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(timeout):
		t.Fatal("still blocked")
		return nil
	}
}
