package e2e

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// withoutBPF as the first argument makes the test binary a launcher that gives up the right to BPF.
const withoutBPF = "without-bpf"

// execWithoutBPF becomes a program that may do all that root may but use BPF.
func execWithoutBPF(args []string) error {
	runtime.LockOSThread()
	for _, c := range []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return unix.Exec(args[0], args, os.Environ())
}

// TestWithoutBPF: without the right to BPF the daemon does its work in userspace, and status, metric and one line of the log
// say why. Asked for the kernel, it does not start.
func TestWithoutBPF(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	before := labtest.Snapshot(t, topology.Gateway)
	g := newGateway(t, topology.Gateway, api.DatapathUserspace)
	self, err := os.Executable()
	labtest.Must(t, err)
	launcher := []string{withoutBPF, binary(t), "run", "--socket", g.socket()}

	out, err := topology.Gateway.Command(t.Context(), self, append(launcher, "--datapath", api.DatapathKernel)...).CombinedOutput()
	if text := string(out); err == nil || err.Error() != "exit status 1" || lines(text) != 1 || !contains(text, "CAP_BPF") || !contains(text, "datapath") {
		t.Errorf("asked for the kernel: %v\n%s", err, out)
	}
	labtest.Unchanged(t, topology.Gateway, before)

	var mu sync.Mutex
	var told []string
	g.daemon, err = topology.Gateway.StartDaemon(func(line string) {
		t.Log(line)
		mu.Lock()
		defer mu.Unlock()
		told = append(told, line)
	}, self, launcher...)
	labtest.Must(t, err)
	t.Cleanup(g.stop)
	g.await()
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	s := w.status()
	if !contains(s.DatapathReason, "CAP_BPF") || s.LANShortcut || s.LANShortcutReason == "" {
		t.Errorf("status: %+v", s)
	}
	if n := w.metric(`tapgw_datapath_info{datapath="userspace",reason="permission"}`); n != 1 {
		t.Errorf("metric: %g", n)
	}
	if out, _ := w.tapgw("status"); !contains(out, "CAP_BPF") {
		t.Errorf("status says\n%s", out)
	}
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		testBulk(t, w, ns)
	}
	g.stop()
	because := 0
	mu.Lock()
	defer mu.Unlock()
	for _, line := range told {
		if contains(line, s.DatapathReason) {
			because++
		}
	}
	if because != 1 {
		t.Errorf("%d lines of the log say why:\n%s", because, strings.Join(told, "\n"))
	}
	labtest.Unchanged(t, topology.Gateway, before)
}
