package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// terminal is one of tmux, of 100 columns and 30 lines, in which a shell runs a script. It ends with the test.
type terminal struct {
	t      testing.TB
	ns     *lab.Namespace
	socket string
}

// openTerminal opens one with variables of the environment as A=b.
func openTerminal(t testing.TB, ns *lab.Namespace, script string, env ...string) *terminal {
	t.Helper()
	program, err := exec.LookPath("tmux")
	if err != nil {
		t.Fatalf("tmux is missing, run `make peers`: %v", err)
	}
	x := &terminal{t, ns, filepath.Join(t.TempDir(), "tmux")}
	server, err := ns.StartDaemon(func(line string) { t.Log(line) }, program, "-D", "-S", x.socket, "-f", "/dev/null")
	labtest.Must(t, err)
	t.Cleanup(func() {
		_ = server.Signal(syscall.SIGTERM)
		labtest.Must(t, server.AwaitEnd(patience))
	})
	args := []string{"new-session", "-d", "-x", "100", "-y", "30"}
	for _, v := range env {
		args = append(args, "-e", v)
	}
	eventually(t, "the start of tmux", func() bool { _, err := x.tmux(append(args, script)...); return err == nil })
	return x
}

// tmux has the server of the terminal do something.
func (x *terminal) tmux(args ...string) (string, error) {
	out, err := x.ns.Command(labtest.Context(x.t), "tmux", append([]string{"-N", "-u", "-S", x.socket}, args...)...).CombinedOutput()
	return string(out), err
}

// must is tmux for what cannot fail.
func (x *terminal) must(args ...string) string {
	x.t.Helper()
	out, err := x.tmux(args...)
	if err != nil {
		x.t.Fatalf("tmux %v: %v, %s", args, err, out)
	}
	return out
}

// press presses keys, which are called as in tmux(1).
func (x *terminal) press(keys ...string) {
	x.t.Helper()
	x.must(append([]string{"send-keys"}, keys...)...)
}

// screen is what is to be seen, without colours.
func (x *terminal) screen() string {
	x.t.Helper()
	return x.must("capture-pane", "-p")
}

// await waits until all parts are on the screen, and returns it.
func (x *terminal) await(parts ...string) (screen string) {
	x.t.Helper()
	return x.awaitScreen(strings.Join(parts, ", "), func(screen string) bool {
		for _, part := range parts {
			if !strings.Contains(screen, part) {
				return false
			}
		}
		return true
	})
}

// awaitScreen waits until the screen is as it should be.
func (x *terminal) awaitScreen(what string, ok func(screen string) bool) (screen string) {
	x.t.Helper()
	defer func() {
		if x.t.Failed() {
			x.t.Log("the screen:\n" + screen)
		}
	}()
	eventually(x.t, what+" on the screen", func() bool { screen = x.screen(); return ok(screen) })
	return screen
}
