package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// fakeManager is a service manager, as far as a daemon sees it (sd_notify(3)).
type fakeManager struct {
	t    testing.TB
	conn *net.UnixConn
	path string
}

// newFakeManager listens; an inherited environment names no other.
func newFakeManager(t testing.TB) *fakeManager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &fakeManager{t, conn, path}
}

// next is what is told next, but for what is skipped.
func (f *fakeManager) next(skip ...string) []string {
	f.t.Helper()
	labtest.Must(f.t, f.conn.SetReadDeadline(time.Now().Add(patience)))
	for buf := make([]byte, 4096); ; {
		n, err := f.conn.Read(buf)
		labtest.Must(f.t, err)
		told := strings.Split(string(buf[:n]), "\n")
		if !slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(told[0], s) }) {
			return told
		}
	}
}

// expect fails the test unless the next is one word.
func (f *fakeManager) expect(word string, skip ...string) {
	f.t.Helper()
	if told := f.next(skip...); !slices.Equal(told, []string{word}) {
		f.t.Errorf("told %q, want %q", told, word)
	}
}

// expectReload waits for the whole of one, that began since.
func (f *fakeManager) expectReload(since time.Duration) {
	f.t.Helper()
	told := f.next(statusWord, watchdogWord)
	if len(told) != 2 || told[0] != "RELOADING=1" {
		f.t.Fatalf("told %q", told)
	}
	text, ok := strings.CutPrefix(told[1], "MONOTONIC_USEC=")
	at, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || time.Duration(at)*time.Microsecond < since || time.Duration(at)*time.Microsecond > monotonic(f.t) {
		f.t.Errorf("told %q", told)
	}
	f.expect("READY=1", statusWord, watchdogWord)
}

const statusWord, watchdogWord = "STATUS=", "WATCHDOG="

// monotonic is the clock that service managers compare with.
func monotonic(t testing.TB) time.Duration {
	t.Helper()
	var now unix.Timespec
	labtest.Must(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return time.Duration(now.Nano()).Truncate(time.Microsecond)
}

// TestNotify: the service manager is told when the gateway is ready, how it is, that it lives, that it reloads, and that it stops. One
// that hangs is silent.
func TestNotify(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	f := newFakeManager(t)
	g := newGateway(t, topology.Gateway, datapath(t))
	g.write(inTurn)
	const watchdog = 6 * time.Second
	var err error
	g.daemon, err = topology.Gateway.StartDaemon(g.hear, "env", "NOTIFY_SOCKET="+f.path, "WATCHDOG_USEC="+strconv.FormatInt(watchdog.Microseconds(), 10),
		binary(t), "run", "--socket", g.socket(), "--config", g.file(), "--datapath", g.datapath)
	labtest.Must(t, err)
	t.Cleanup(g.stop)

	f.expect("READY=1", statusWord, watchdogWord)
	g.await()
	f.expectStatus("STATUS=2 of 2 uplinks usable, ")
	f.expectLife(watchdog)

	began := monotonic(t)
	g.use(preferFirst)
	f.expectReload(began)
	g.write("policy: {scheduler: worst}\n")
	began = monotonic(t)
	g.signal(syscall.SIGHUP)
	f.expectReload(began)

	labtest.Must(t, topology.Uplinks[0].Silence(true))
	f.expectStatus("STATUS=1 of 2 uplinks usable, ")

	g.signal(syscall.SIGSTOP)
	f.expectSilence(watchdog * 3 / 4)
	g.signal(syscall.SIGCONT)
	f.expectLife(watchdog)

	g.signal(syscall.SIGTERM)
	f.expect("STOPPING=1", statusWord, watchdogWord)
	g.stop()
}

// expectStatus waits for a status that begins so.
func (f *fakeManager) expectStatus(text string) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if strings.HasPrefix(f.next(watchdogWord)[0], text) {
			return
		}
	}
	f.t.Fatalf("not told %q", text)
}

// expectLife waits for signs of life, which come before the manager would lose patience.
func (f *fakeManager) expectLife(watchdog time.Duration) {
	f.t.Helper()
	f.expect("WATCHDOG=1", statusWord)
	began := time.Now()
	f.expect("WATCHDOG=1", statusWord)
	if took := time.Since(began); took > watchdog {
		f.t.Errorf("the next sign of life came after %s", took)
	}
}

// expectSilence takes what was told before, and fails the test if anything comes after that.
func (f *fakeManager) expectSilence(limit time.Duration) {
	f.t.Helper()
	labtest.Must(f.t, f.conn.SetReadDeadline(time.Now().Add(limit/4)))
	buf := make([]byte, 4096)
	for _, err := f.conn.Read(buf); err == nil; _, err = f.conn.Read(buf) {
	}
	labtest.Must(f.t, f.conn.SetReadDeadline(time.Now().Add(limit)))
	if n, err := f.conn.Read(buf); !os.IsTimeout(err) {
		f.t.Errorf("told %q, %v", buf[:n], err)
	}
}

// TestWaitsForUplink: as a service the gateway starts before there is a network, and uses the first uplink that appears.
func TestWaitsForUplink(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	for _, u := range topology.Uplinks {
		labtest.Must(t, u.RemoveDefault())
	}
	before := labtest.Snapshot(t, topology.Gateway)
	f := newFakeManager(t)
	g := newGateway(t, topology.Gateway, datapath(t))
	var err error
	g.daemon, err = topology.Gateway.StartDaemon(g.hear, "env", "NOTIFY_SOCKET="+f.path, binary(t), "run", "--wait", "--socket", g.socket(),
		"--datapath", g.datapath)
	labtest.Must(t, err)
	t.Cleanup(g.stop)
	g.await()
	f.expect("READY=1", statusWord)
	f.expectStatus("STATUS=Waiting for an uplink")
	if out, status := g.tapgw("status"); status != 5 || !strings.Contains(out, "offline") {
		t.Errorf("status %d\n%s", status, out)
	}
	for i, u := range topology.Uplinks {
		labtest.Must(t, u.AddRoutes())
		g.awaitState(u.Device, "up")
		f.expectStatus("STATUS=" + strconv.Itoa(i+1) + " of " + strconv.Itoa(i+1) + " uplinks usable, ")
	}
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	online(t, topology.Gateway)
	for _, u := range topology.Uplinks {
		labtest.Must(t, u.RemoveDefault())
	}
	g.stop()
	labtest.Unchanged(t, topology.Gateway, before)
}
