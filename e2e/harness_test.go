package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// patience bounds every wait: generous, because nothing is measured by it.
const patience = 20 * time.Second

// binary is the program under test, built by `make build`.
func binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("E2E_BINARY")
	if path == "" {
		path = "../bin/tapgw"
	}
	abs, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(abs)
	}
	if err != nil {
		t.Fatalf("the program under test is missing, run `make build`: %v", err)
	}
	return abs
}

// datapath is who is to carry known sessions: E2E_DATAPATH, or the kernel.
func datapath(t testing.TB) string {
	t.Helper()
	switch d := os.Getenv("E2E_DATAPATH"); d {
	case "":
		return api.DatapathKernel
	case api.DatapathKernel, api.DatapathUserspace:
		return d
	default:
		t.Fatalf("E2E_DATAPATH is %q, not %s or %s", d, api.DatapathKernel, api.DatapathUserspace)
		return ""
	}
}

// gateway is a daemon running in the gateway of a topology.
type gateway struct {
	t        testing.TB
	ns       *lab.Namespace
	daemon   *lab.Daemon
	datapath string // that it must say to have
	dir      string
	client   *api.Client
	family   *family // that tests of traffic use
	err      error   // of the process, after it was stopped or killed

	mu  sync.Mutex
	log []string
}

// start runs the daemon with a configuration file (YAML, "" for none) and waits until it says that it is ready. It is
// stopped at the end of the test, whose log gets its output.
func start(t testing.TB, ns *lab.Namespace, config string) *gateway {
	t.Helper()
	return startOn(t, ns, datapath(t), config)
}

// startOn is start for a test about one datapath.
func startOn(t testing.TB, ns *lab.Namespace, on, config string) *gateway {
	t.Helper()
	g := launch(t, ns, on, config)
	g.await()
	return g
}

// restart starts the daemon again after it ended, with the same socket and file.
func (g *gateway) restart() {
	g.t.Helper()
	g.exec()
	g.await()
}

// await waits until the daemon is ready, and fails the test where it fell back to another datapath than it should have.
func (g *gateway) await() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	labtest.Must(g.t, g.daemon.AwaitReady(ctx))
	if s := g.status(); s.Datapath != g.datapath {
		g.t.Fatalf("the datapath is %s (%s), not %s", s.Datapath, s.DatapathReason, g.datapath)
	}
}

// newGateway is a gateway that does not run yet.
func newGateway(t testing.TB, ns *lab.Namespace, on string) *gateway {
	g := &gateway{t: t, ns: ns, datapath: on, dir: t.TempDir(), family: overIPv4}
	g.client = &api.Client{Socket: g.socket()}
	return g
}

// launch runs the daemon without waiting for it.
func launch(t testing.TB, ns *lab.Namespace, on, config string) *gateway {
	t.Helper()
	g := newGateway(t, ns, on)
	if config != "" {
		g.write(config)
	}
	g.exec()
	t.Cleanup(g.stop)
	return g
}

// exec starts the process.
func (g *gateway) exec() {
	g.t.Helper()
	args := []string{"run", "--socket", g.socket()}
	if g.datapath == api.DatapathUserspace {
		args = append(args, "--datapath", g.datapath) // the kernel must be what "auto" gives
	}
	if _, err := os.Stat(g.file()); err == nil {
		args = append(args, "--config", g.file())
	}
	var err error
	g.daemon, err = g.ns.StartDaemon(g.hear, binary(g.t), args...)
	labtest.Must(g.t, err)
}

// hear takes a line of the daemon's log.
func (g *gateway) hear(line string) {
	g.t.Log(line)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = append(g.log, line)
}

// said counts the lines of the daemon's log that contain all parts.
func (g *gateway) said(parts ...string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, line := range g.log {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

func (g *gateway) socket() string { return filepath.Join(g.dir, "tapgw.sock") }
func (g *gateway) file() string   { return filepath.Join(g.dir, "tapgw.yaml") }

// write replaces the configuration file.
func (g *gateway) write(config string) {
	g.t.Helper()
	labtest.Must(g.t, os.WriteFile(g.file(), []byte(config), 0o644))
}

// use reloads with another configuration.
func (g *gateway) use(config string) {
	g.t.Helper()
	g.write(config)
	if out, status := g.tapgw("reload"); status != 0 {
		g.t.Fatalf("reload: status %d, %s", status, out)
	}
}

// signal sends the daemon a signal.
func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	labtest.Must(g.t, g.daemon.Signal(s))
}

// stop ends the daemon cleanly and waits for it; a second call does nothing.
func (g *gateway) stop() {
	_ = g.daemon.Signal(syscall.SIGTERM)
	g.wait()
}

// kill ends the daemon as a crash does.
func (g *gateway) kill() {
	g.t.Helper()
	g.signal(syscall.SIGKILL)
	g.wait()
}

func (g *gateway) wait() {
	if err := g.daemon.AwaitEnd(patience); err != nil {
		g.t.Error(err)
	}
	g.err = g.daemon.Err
}

// status asks the daemon.
func (g *gateway) status() api.Status {
	g.t.Helper()
	s, err := g.client.Status(g.t.Context())
	labtest.Must(g.t, err)
	return s
}

// uplink returns the status of one uplink.
func (g *gateway) uplink(name string) api.Uplink {
	g.t.Helper()
	for _, u := range g.status().Uplinks {
		if u.Name == name {
			return u
		}
	}
	g.t.Fatalf("no uplink %s", name)
	return api.Uplink{}
}

// awaitState follows the events until the uplink is in one of the states, and says how long that took.
func (g *gateway) awaitState(name string, states ...string) time.Duration {
	g.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	found := false
	err := g.client.Events(ctx, func(e api.Event) {
		if e.Uplink != name {
			return
		}
		for _, s := range states {
			if e.To == s {
				found = true
				cancel()
			}
		}
	})
	if !found {
		g.t.Fatalf("uplink %s did not become %v (%v); it is %+v", name, states, err, g.uplink(name))
	}
	return time.Since(begin)
}

// awaitUp waits until all uplinks of the topology are up.
func (g *gateway) awaitUp(topology *lab.Topology) {
	g.t.Helper()
	for _, u := range topology.Uplinks {
		g.awaitState(u.Device, api.StateUp)
	}
}

// tapgw runs one command of the program in the gateway and returns its output and exit status.
func (g *gateway) tapgw(args ...string) (output string, status int) {
	g.t.Helper()
	return run(g.t, g.ns, append(args, "--socket", g.socket())...)
}

// run runs the program once.
func run(t testing.TB, ns *lab.Namespace, args ...string) (output string, status int) {
	t.Helper()
	out, err := ns.Command(t.Context(), binary(t), args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), 0
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	}
	t.Fatalf("tapgw %s: %v", strings.Join(args, " "), err)
	return "", 0
}

// eventually waits until ok holds, for what no event tells.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen in %s", what, patience)
		}
	}
}

// capacities is the configuration of a topology's uplinks with capacities in Mbit/s, {down, up} for each.
func capacities(rates ...[2]int) string {
	var b strings.Builder
	b.WriteString("uplinks:\n")
	for i, r := range rates {
		fmt.Fprintf(&b, "  - {interface: wan%d, capacity: {down: %dMbit, up: %dMbit}}\n", i+1, r[0], r[1])
	}
	return b.String()
}
