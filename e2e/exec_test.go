package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// fetch is the shell command that prints by which address a server of a family sees it.
func fetch(f *family) string {
	return "curl -qsS --noproxy '*' --max-time 10 http://" + netip.AddrPortFrom(f.servers[0], lab.PortHTTP).String() + "/whoami; echo"
}

// seenFrom is the address in the output of fetch.
func seenFrom(t *testing.T, line string) netip.Addr {
	t.Helper()
	seen, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	return seen.Addr()
}

// via runs a shell command on one uplink.
func (w world) via(uplink, script string) (string, int) {
	w.t.Helper()
	return run(w.t, w.Gateway, "exec", "--socket", w.socket(), "--via", uplink, "--", "sh", "-c", script)
}

// TestExecUsesOneUplink: new sessions of a command, of what it starts and of what has fewer rights, of both families, use the named
// uplink whatever rules say; they are refused while it is down. Everything else is as before.
func TestExecUsesOneUplink(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, "policy: {scheduler: failover}\nrules: [{name: mine, users: [root], use: all}]\n")
	second := w.Uplinks[1]
	for _, f := range []*family{overIPv4, overIPv6} {
		for what, script := range map[string]string{
			"a command":      fetch(f),
			"its child":      "sh -c \"" + fetch(f) + "\"; true",
			"another's user": fmt.Sprintf("setpriv --reuid %d --clear-groups sh -c \"%s\"", nobodyElse, fetch(f)),
		} {
			out, status := w.via("wan2", script)
			if got := seenFrom(t, out); status != 0 || got != f.own(second) {
				t.Errorf("%s, %s: by %s, status %d", f.name, what, got, status)
			}
		}
		got, err := w.asked(f, "/usr/bin/curl", nil)
		if err != nil || got != f.own(w.Uplinks[0]) {
			t.Errorf("%s, anything else: by %s, %v", f.name, got, err)
		}
	}
	if out := w.command("sessions", "--json"); !strings.Contains(out, `"rule": "tapgw exec"`) {
		t.Error("no session shows why it is there")
	}
	begun := time.Now()
	labtest.Must(t, second.Link.Cut())
	w.events.state("wan2", api.StateDown, begun)
	if out, status := w.via("wan2", strings.TrimSuffix(fetch(overIPv4), "; echo")); status != 7 { // curl's, for what is refused
		t.Errorf("while the uplink is down: status %d, %s", status, out)
	}
}

// TestExecGivesTheStatusOfTheCommand, or says why there is none.
func TestExecGivesTheStatusOfTheCommand(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"--via wan2 -- sh -c exit\t7", 7, ""},
		{"--via wan2 -- no-such-command-here", 127, "no command no-such-command-here"},
		{"--via wan2 -- /", 126, "run /"},
		{"--via wan9 -- true", 10, `no such uplink: "wan9"; known uplinks: `},
		{"true", 2, "--via"},
	} {
		args := append([]string{"exec", "--socket", w.socket()}, strings.Split(c.args, " ")...)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\t", " ")
		}
		if out, status := run(t, w.Gateway, args...); status != c.status || !strings.Contains(out, c.says) {
			t.Errorf("%s: status %d, want %d: %s", c.args, status, c.status, out)
		}
	}
	eventually(t, "no cgroup left", func() bool { return len(w.cgroups()) == 0 })
}

// cgroups are those that the daemon has in its journal.
func (w world) cgroups() (list []string) {
	journal, err := os.ReadFile(filepath.Join(w.dir, "undo.json"))
	labtest.Must(w.t, err)
	for line := range strings.Lines(string(journal)) {
		if strings.Contains(line, "tapgw-exec-") {
			list = append(list, line)
		}
	}
	return list
}

// asker is a shell on one uplink that asks when it is told to.
type asker struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
	pid int
}

func (w world) asker(t *testing.T, uplink string) *asker {
	t.Helper()
	cmd := w.Gateway.Command(t.Context(), binary(t), "exec", "--socket", w.socket(), "--via", uplink, "--",
		"sh", "-c", "while read line; do "+fetch(overIPv4)+"; done")
	in, err := cmd.StdinPipe()
	labtest.Must(t, err)
	out, err := cmd.StdoutPipe()
	labtest.Must(t, err)
	labtest.Must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &asker{t, in, bufio.NewReader(out), cmd.Process.Pid}
}

func (a *asker) ask() netip.Addr {
	a.t.Helper()
	_, err := fmt.Fprintln(a.in)
	labtest.Must(a.t, err)
	line, err := a.out.ReadString('\n')
	labtest.Must(a.t, err)
	return seenFrom(a.t, line)
}

// group is the cgroup of the process.
func (a *asker) group() string {
	a.t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(a.pid) + "/cgroup")
	labtest.Must(a.t, err)
	return string(text)
}

// TestExecOutlivesACrash: a command keeps its uplink over a crash of the daemon and a reload, and its cgroup goes with a clean stop while
// it goes on, or by cleanup.
func TestExecOutlivesACrash(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	second := w.Uplinks[1].Addr()
	a := w.asker(t, "wan2")
	expect := func(when string, want netip.Addr) {
		t.Helper()
		if got := a.ask(); got != want {
			t.Errorf("%s: by %s, not %s", when, got, want)
		}
	}
	expect("at first", second)
	w.use(preferFirst)
	expect("after a reload", second)
	w.kill()
	w.restart()
	w.awaitUp(w.Topology)
	expect("after a crash", second)
	w.stop()
	if strings.Contains(a.group(), "tapgw-exec-") {
		t.Errorf("after a clean stop it is in %s", a.group())
	}
	w.restart()
	w.awaitUp(w.Topology)
	expect("after a restart", w.Uplinks[0].Addr())

	b := w.asker(t, "wan2")
	if got := b.ask(); got != second || !strings.Contains(b.group(), "tapgw-exec-") {
		t.Errorf("by %s, in %s", got, b.group())
	}
	w.kill()
	if out := w.command("cleanup"); !strings.Contains(out, "removed cgroup") || strings.Contains(b.group(), "tapgw-exec-") {
		t.Errorf("%s, still in %s", out, b.group())
	}
}
