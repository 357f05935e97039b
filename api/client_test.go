package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemon answers with h on a unix socket until the test ends.
func daemon(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return &Client{Socket: path}
}

// write leaves a client that has hung up to the test's own checks.
func write(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

func answer(w io.Writer, v any) { _ = json.NewEncoder(w).Encode(v) }

func TestNothingIsEverNull(t *testing.T) {
	for _, v := range []any{Status{}, Status{Uplinks: []Uplink{{}}}, Session{}, Event{}, Error{}} {
		text, err := json.Marshal(v)
		if err != nil || bytes.Contains(text, []byte("null")) {
			t.Errorf("%T: %s, %v", v, text, err)
		}
	}
}

func TestImpossibleNumbersBecomeZero(t *testing.T) {
	text, err := json.Marshal(Uplink{Load: math.NaN(), RxBps: math.Inf(1), Loss: 0.5})
	if err != nil || !bytes.Contains(text, []byte(`"load":0,`)) || !bytes.Contains(text, []byte(`"loss":0.5`)) {
		t.Fatalf("%s, %v", text, err)
	}
}

func TestStatusSurvivesTheWire(t *testing.T) {
	want := Status{Version: "1", Uplinks: []Uplink{{
		Name: "lte", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Since: time.Unix(1, 0).UTC(),
	}}}
	c := daemon(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, want) })
	got, err := c.Status(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestRequests(t *testing.T) {
	var asked string
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.EscapedPath() + " " + r.URL.RawQuery
		write(w, "[]")
	})
	ctx := t.Context()
	filter := Filter{Uplink: "a b", Proto: "tcp", Inside: netip.MustParseAddr("10.0.0.2"), Limit: 3}
	for _, test := range []struct {
		call func() error
		want string
	}{
		{func() error { return c.SetUplink(ctx, "a/b", true) }, "POST /v1/uplinks/a%2Fb/enable "},
		{func() error { return c.SetUplink(ctx, "lte", false) }, "POST /v1/uplinks/lte/disable "},
		{func() error { return c.Reload(ctx) }, "POST /v1/reload "},
		{func() error { _, err := c.Config(ctx); return err }, "GET /v1/config "},
		{func() error { _, err := c.Sessions(ctx, Filter{}); return err }, "GET /v1/sessions "},
		{func() error { _, err := c.Sessions(ctx, filter); return err },
			"GET /v1/sessions inside=10.0.0.2&limit=3&proto=tcp&uplink=a+b"},
	} {
		if err := test.call(); err != nil || asked != test.want {
			t.Errorf("asked %q, want %q, error %v", asked, test.want, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for err, code := range map[error]int{
		ErrDenied: 403, ErrUnknownUplink: 404, ErrConflict: 409, ErrBadConfig: 422, ErrBusy: 503, errors.New("x"): 500,
	} {
		if got := StatusCode(fmt.Errorf("wrapped: %w", err)); got != code {
			t.Errorf("%v has code %d, want %d", err, got, code)
		}
		c := daemon(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			answer(w, Error{Message: "m", Hint: "do h"})
		})
		got := c.Reload(t.Context())
		if got.Error() != "m; do h" || code != 500 && !errors.Is(got, err) || errors.Is(got, ErrNoDaemon) {
			t.Errorf("code %d became %v", code, got)
		}
	}
}

func TestGarbageAnswers(t *testing.T) {
	for _, body := range []string{"", "null", "<html>", "{}", `{"error":1}`, strings.Repeat("x", 2*maxError)} {
		c := daemon(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			write(w, body)
		})
		if err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("%.20q: %v", body, err)
		}
	}
	c := daemon(t, func(w http.ResponseWriter, _ *http.Request) { write(w, `{"version": 1`) })
	if _, err := c.Version(t.Context()); err == nil {
		t.Error("half an answer was taken")
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "absent"), stale, file, filepath.Join(file, "below")} {
		_, err := (&Client{Socket: path}).Status(t.Context())
		if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "tapgw run") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestDialErrors(t *testing.T) {
	c := &Client{}
	for _, test := range []struct {
		err  error
		want error
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", fs.ErrPermission)}, ErrDenied},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, ErrBusy},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, ErrBusy},
		{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		{io.EOF, ErrBusy},
		{errors.New("http: server closed idle connection"), ErrBusy},
		{context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		if got := c.explain(test.err); !errors.Is(got, test.want) || !strings.Contains(got.Error(), DefaultSocket) {
			t.Errorf("%v became %v", test.err, got)
		}
	}
}

func TestEvents(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := daemon(t, func(w http.ResponseWriter, r *http.Request) {
		write(w, `{"kind":"snapshot","uplink":"a"}`+"\n"+`{"kind":"state","uplink":"a","unknown":1}`+"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	var kinds []string
	err := c.Events(ctx, func(e Event) {
		if kinds = append(kinds, e.Kind); len(kinds) == 2 {
			cancel()
		}
	})
	if err != nil || fmt.Sprint(kinds) != "[snapshot state]" {
		t.Fatalf("%v, %v", kinds, err)
	}
}

func TestEventStreamEnds(t *testing.T) {
	for body, want := range map[string]string{
		"": ErrStreamEnded.Error(), "{}\n": ErrStreamEnded.Error(), "garbage\n": "read an event",
		strings.Repeat("x", 2*maxEventLine): "too long",
	} {
		c := daemon(t, func(w http.ResponseWriter, _ *http.Request) { write(w, body) })
		if err := c.Events(t.Context(), func(Event) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v", body, err)
		}
	}
}

func TestUsable(t *testing.T) {
	for state, want := range map[string]bool{
		StateUp: true, StateDegraded: true, StateProbing: false, StatePortal: false, StateDown: false, StateDisabled: false, "": false,
	} {
		if u := (Uplink{State: state}); u.Usable() != want {
			t.Errorf("%q: %v", state, u.Usable())
		}
	}
}
