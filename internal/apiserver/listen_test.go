package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/api"
)

func TestMetricsOnBothListeners(t *testing.T) {
	address := freeLoopback(t)
	s := testServer(newFake(), Options{Socket: filepath.Join(t.TempDir(), "s"), MetricsAddress: address, Metrics: fakeMetrics()})
	start(t, s)
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, test := range []struct {
		path, host string
		code       int
	}{
		{"/metrics", "", 200},
		{"/metrics", "localhost:1", 200},
		{"/metrics", "evil.example:80", 403},
		{"/metrics", "127.0.0.1.evil.example:80", 403},
		{"/v1/status", "", 404},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+test.path, nil)
		req.Host = test.host
		answer, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != test.code {
			t.Errorf("%+v: %d %s", test, answer.StatusCode, body)
		}
	}
	if w := get(s, http.MethodGet, "/metrics"); w.Code != 200 || !strings.Contains(w.Body.String(), "tapgw_sessions") {
		t.Errorf("on the socket: %d %s", w.Code, w.Body)
	}
}

func freeLoopback(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestMetricsStayLocal(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, want := range map[string]string{
		"0.0.0.0:9473": "loopback", ":9473": "loopback", "192.0.2.1:9473": "loopback", "127.0.0.1": "loopback",
		taken.Addr().String(): "in use",
	} {
		s := testServer(newFake(), Options{Socket: filepath.Join(t.TempDir(), "s"), MetricsAddress: address})
		mustContain(t, s.Run(t.Context()), "api.metrics", want)
	}
}

// TestListenComesFirst: a request made before Run is answered by it.
func TestListenComesFirst(t *testing.T) {
	s := testServer(newFake(), Options{Socket: filepath.Join(open(t), "s")})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := (&api.Client{Socket: s.opts.Socket}).Status(context.Background())
		answered <- err
	}()
	start(t, s)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestSocketPathTooLong: the kernel would only say that an argument is invalid.
func TestSocketPathTooLong(t *testing.T) {
	s := testServer(newFake(), Options{Socket: filepath.Join(open(t), strings.Repeat("x", 150))})
	mustContain(t, s.Listen(), "may have 107", "--socket")
}

func TestListenLeavesNothing(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	socket := filepath.Join(open(t), "s")
	s := testServer(newFake(), Options{Socket: socket, MetricsAddress: other.Addr().String()})
	mustContain(t, s.Listen(), "in use", "api.metrics")
	s = testServer(newFake(), Options{Socket: socket})
	s.Close()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
