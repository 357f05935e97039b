package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tapgw/api"
	"tapgw/internal/apiserver/apitest"
)

// testGroup stands for the group tapgw, which the machine need not have.
const testGroup = 54321

const childEnv = "APISERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if socket := os.Getenv(childEnv); strings.HasPrefix(socket, "http:") {
		visit(socket)
		return
	} else if socket != "" {
		child(&api.Client{Socket: socket})
		return
	}
	goleak.VerifyTestMain(m)
}

// visit opens a page and prints the status of the answer.
func visit(url string) {
	answer, err := http.Get(url) //nolint:noctx // the process ends with it
	if err != nil {
		fmt.Println(err)
		return
	}
	answer.Body.Close()
	fmt.Println(answer.StatusCode)
}

// child tries everything a client may want and prints what came of it.
func child(c *api.Client) {
	ctx := context.Background()
	_, statusErr := c.Status(ctx)
	_, sessionsErr := c.Sessions(ctx, api.Filter{})
	events, stop := context.WithTimeout(ctx, time.Minute)
	eventsErr := c.Events(events, func(api.Event) { stop() })
	fmt.Printf("read: %v\n", errors.Join(statusErr, sessionsErr, eventsErr))
	_, signInErr := c.SignInURL(ctx)
	fmt.Printf("kept out of the dashboard: %v\n", errors.Is(signInErr, api.ErrDenied))
	fmt.Println(c.Access(ctx))
	fmt.Printf("set: %v\nreload: %v\n", c.SetUplink(ctx, "fiber", false), c.Reload(ctx))
}

// fakeDaemon is a backend of two uplinks.
type fakeDaemon struct {
	*Hub
	apitest.Daemon
}

func newFake() *fakeDaemon {
	return &fakeDaemon{NewHub(), apitest.Daemon{
		State: api.Status{Version: "1.2.3", Datapath: api.DatapathUserspace, Uplinks: []api.Uplink{
			{Name: "fiber", Interface: "eth0", State: api.StateUp},
			{Name: "lte", Interface: "wwan0", State: api.StateDown, Reason: "no reply"},
		}},
		YAML: "tap:\n  name: tapgw0\n",
	}}
}

// movingDaemon is one whose state changes.
type movingDaemon struct {
	*fakeDaemon
	mu sync.Mutex
}

func newMoving() *movingDaemon { return &movingDaemon{fakeDaemon: newFake()} }

func (d *movingDaemon) Status() api.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.State
	s.Uplinks = slices.Clone(s.Uplinks)
	return s
}

func (d *movingDaemon) set(change func(*api.Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.State)
}

// sessions makes n sessions of four hosts, TCP by one uplink and UDP by the other.
func sessions(n int) (list []api.Session) {
	for i := range n {
		inside := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 4)})
		proto, uplink := "tcp", "fiber"
		if i%2 == 1 {
			proto, uplink = "udp", "lte"
		}
		list = append(list, api.Session{Proto: proto, Uplink: uplink, Inside: netip.AddrPortFrom(inside, uint16(i))})
	}
	return list
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// open makes a folder that other users may enter.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func testServer(b Backend, o Options) *Server {
	o.Logger = quiet()
	s := New(b, o)
	s.groupID = func() (uint32, error) { return testGroup, nil }
	return s
}

// start runs s until the test ends and returns a client and a way to stop it earlier.
func start(t *testing.T, s *Server) (*api.Client, func()) {
	t.Helper()
	return &api.Client{Socket: s.opts.Socket}, apitest.Start(t, s)
}

func serving(t *testing.T, b Backend) (*api.Client, func()) {
	t.Helper()
	return start(t, testServer(b, Options{Socket: filepath.Join(open(t), "run", "s.sock"), Metrics: fakeMetrics()}))
}

func fakeMetrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "tapgw_sessions 1\n") })
}

func mustContain(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v does not say %q", err, p)
		}
	}
}
