package main

import (
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tapgw/internal/apiserver"
	"tapgw/internal/apiserver/apitest"
	"tapgw/web"
)

var signInURL = regexp.MustCompile(`^Open this in a browser, within 2 minutes:\n  http://127\.0\.0\.1:\d+/sign-in\?key=[A-Z2-7]{26}\n$`)

func TestWeb(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // and hope that nobody else gets its port
	d := healthy()
	d.Hub = apiserver.NewHub()
	socket := filepath.Join(t.TempDir(), "s")
	apitest.Start(t, apiserver.New(d, apiserver.Options{
		Socket: socket, Logger: slog.New(slog.DiscardHandler),
		Dashboard: apiserver.Dashboard{Address: netip.MustParseAddrPort(l.Addr().String()), Page: web.Static()},
	}))
	w := newWorld(socket, "web")
	if code := w.run(); code != 0 || !signInURL.MatchString(w.out.String()) {
		t.Errorf("exit status %d, %s%s", code, w.out.String(), w.err.String())
	}
}

func TestWebWithoutDashboard(t *testing.T) {
	w := newWorld(serve(t, healthy()), "web")
	if code := w.run(); code != exitFailure || !strings.Contains(w.err.String(), "dashboard.listen") {
		t.Errorf("exit status %d, %s%s", code, w.out.String(), w.err.String())
	}
}
