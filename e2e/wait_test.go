package e2e

import (
	"os/exec"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// waiting starts `tapgw wait`, and returns what gives its exit status.
func (g *gateway) waiting(args ...string) (ended func() int) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), binary(g.t), append([]string{"wait", "--socket", g.socket(), "--timeout", patience.String()}, args...)...)
	labtest.Must(g.t, cmd.Start())
	return func() int {
		_ = cmd.Wait() // its status is what counts
		return cmd.ProcessState.ExitCode()
	}
}

// TestWait: for a daemon that does not run yet, for one uplink that is down, and in vain.
func TestWait(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := newGateway(t, topology.Gateway, datapath(t))
	if out, status := g.tapgw("wait", "--timeout", "300ms"); status != 8 {
		t.Errorf("without a daemon: status %d, %s", status, out)
	}
	early := g.waiting()
	g.exec()
	t.Cleanup(g.stop)
	g.await()
	if status := early(); status != 0 {
		t.Errorf("began before the daemon: status %d", status)
	}
	g.awaitUp(topology)
	if out, status := g.tapgw("wait", "--for", "wan9", "--timeout", "300ms"); status != 3 || !contains(out, "wan9") {
		t.Errorf("for no uplink: status %d, %s", status, out)
	}
	events, begun := g.record(), time.Now()
	labtest.Must(t, topology.Uplinks[1].Link.Cut())
	events.state("wan2", api.StateDown, begun)
	if out, status := g.tapgw("wait", "--for", "partial"); status != 0 || !contains(out, "partial (1 of 2") {
		t.Errorf("for one of two: status %d, %s", status, out)
	}
	if out, status := g.tapgw("wait", "--timeout", "300ms"); status != 3 {
		t.Errorf("for both: status %d, %s", status, out)
	}
	second, all := g.waiting("--for", "wan2"), g.waiting()
	labtest.Must(t, topology.Uplinks[1].Link.Mend())
	if a, b := second(), all(); a != 0 || b != 0 {
		t.Errorf("for what comes: status %d and %d", a, b)
	}
}
