package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"tapgw/api"
	"tapgw/internal/apiserver"
	"tapgw/internal/golden"
	"tapgw/internal/portal"
)

// behindPortals has an uplink with a portal in each family.
func behindPortals() *fakeDaemon {
	d := partial()
	u := &d.State.Uplinks[4]
	u.Addresses, u.Gateway = []netip.Addr{netip.MustParseAddr("10.1.2.3")}, netip.MustParseAddr("10.1.2.1")
	u.PortalURL = "http://login.hotel.example/in?to='$(reboot)'"
	v := &d.State.Uplinks[1].IPv6
	v.State, v.Reason, v.PortalURL = api.StatePortal, "answers are redirected", "http://[2001:db8::9]/"
	v.Addresses, v.Gateway = []netip.Addr{netip.MustParseAddr("2001:db8::2")}, netip.MustParseAddr("fe80::1")
	return d
}

// changing is a daemon whose state can be replaced while it is asked.
type changing struct {
	*fakeDaemon
	mu  sync.Mutex
	now api.Status
}

func (d *changing) Status() api.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// change replaces one uplink, and tells.
func (d *changing) change(name string, f func(*api.Uplink)) {
	d.mu.Lock()
	d.now.Uplinks = append([]api.Uplink(nil), d.now.Uplinks...)
	for i := range d.now.Uplinks {
		if d.now.Uplinks[i].Name == name {
			f(&d.now.Uplinks[i])
		}
	}
	d.mu.Unlock()
	d.Publish(api.Event{Kind: api.EventState, Uplink: name})
}

// only leads to a server of the test.
type only struct{ server string }

func (only) Resolve(context.Context, string) (netip.Addr, error) {
	return netip.MustParseAddr("198.51.100.9"), nil
}
func (only) Own() ([]netip.Addr, error) { return nil, nil }
func (o only) Dial(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", o.server)
}

// proxyOf is where the proxy listens that text speaks of.
var proxyOf = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// runPortal runs `portal` with the arguments, and next with the address of the proxy once that is there; it returns what was printed,
// with a fixed port, and the outlet.
func runPortal(t *testing.T, d *changing, next func(proxy string, interrupt func()), args ...string) (text string, o Outlet, code int) {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "login") }))
	defer page.Close()
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	w := newWorld(serveBackend(t, d), append([]string{"portal"}, args...)...)
	w.Browser = func() string { return "chromium" }
	w.Way = func(_ context.Context, outlet Outlet) (portal.Way, error) {
		o = outlet
		return only{page.Listener.Addr().String()}, nil
	}
	var last sync.WaitGroup
	out := &follower{}
	out.onLine = func(n int) {
		if proxy := proxyOf.FindString(out.String()); n == 1 && proxy != "" {
			last.Go(func() { next(proxy, interrupt) })
		}
	}
	w.Stdout = out
	code = execute(ctx, w.Env)
	last.Wait()
	return proxyOf.ReplaceAllString(out.String(), "127.0.0.1:40000") + w.err.String(), o, code
}

func newChanging() *changing {
	d := &changing{fakeDaemon: behindPortals()}
	d.Hub, d.now = apiserver.NewHub(), d.State
	return d
}

func set(state string) func(*api.Uplink) {
	return func(u *api.Uplink) { u.State = state }
}

// TestPortal: the page comes through the proxy, which ends when somebody has signed in.
func TestPortal(t *testing.T) {
	d := newChanging()
	text, o, code := runPortal(t, d, func(proxy string, _ func()) {
		client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), DisableKeepAlives: true}}
		answer, err := client.Get("http://login.hotel.example/")
		if err != nil {
			t.Error(err)
		} else if body, _ := io.ReadAll(answer.Body); string(body) != "login" {
			t.Errorf("the page is %q", body)
		} else {
			answer.Body.Close()
		}
		d.change("hotel", set(api.StateDown)) // as it may be for a moment
		d.change("hotel", set(api.StateUp))
	}, "hotel")
	golden.Text(t, "testdata/portal", text)
	if want := (Outlet{"wlan1", netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.1.2.1")}); code != 0 || o != want {
		t.Errorf("exit status %d, by %v", code, o)
	}
}

func TestPortalOfIPv6(t *testing.T) {
	d := newChanging()
	d.change("hotel", set(api.StateUp))
	text, o, code := runPortal(t, d, func(string, func()) {
		d.change("wifi", func(u *api.Uplink) { u.IPv6.State = api.StateDegraded })
	})
	golden.Text(t, "testdata/portal-ipv6", text)
	if code != 0 || o.Source != netip.MustParseAddr("2001:db8::2") || o.Gateway != netip.MustParseAddr("fe80::1") {
		t.Errorf("exit status %d, by %v", code, o)
	}
}

// TestPortalJSON: a program reads where the proxy is, and nothing else.
func TestPortalJSON(t *testing.T) {
	d := newChanging()
	text, _, code := runPortal(t, d, func(string, func()) { d.change("hotel", set(api.StateUp)) }, "--json", "hotel")
	golden.Text(t, "testdata/portal-json", text)
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestPortalEnds: whatever makes it pointless to wait ends the proxy, and is told.
func TestPortalEnds(t *testing.T) {
	for name, c := range map[string]struct {
		next func(d *changing, interrupt func())
		code int
		says string
	}{
		"interrupted": {func(_ *changing, interrupt func()) { interrupt() }, exitFailure, "nobody has signed in by hotel"},
		"disabled":    {func(d *changing, _ func()) { d.change("hotel", set(api.StateDisabled)) }, exitFailure, "tapgw uplink enable hotel"},
		"renamed":     {func(d *changing, _ func()) { d.change("hotel", func(u *api.Uplink) { u.Name = "inn" }) }, exitUnknownUplink, "no such uplink"},
		"renumbered": {func(d *changing, _ func()) {
			d.change("hotel", func(u *api.Uplink) { u.Addresses = []netip.Addr{netip.MustParseAddr("10.1.2.4")} })
		}, exitFailure, `run "tapgw portal hotel" again`},
	} {
		d := newChanging()
		text, _, code := runPortal(t, d, func(_ string, interrupt func()) { c.next(d, interrupt) }, "hotel")
		if code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: exit status %d, %s", name, code, text)
		}
	}
}

func TestNoPortal(t *testing.T) {
	for _, c := range []asking{
		{healthy(), "", 0, "No uplink waits for somebody to sign in."},
		{healthy(), "fiber", 0, "fiber is up: it has no page to sign in."},
		{healthy(), "nosuch", exitUnknownUplink, "no such uplink"},
		{behindPortals(), "", exitUsage, "name one: wifi, hotel"},
		{behindPortals(), "wifi hotel", exitUsage, "accepts at most 1"},
		{behindPortals(), "hotel", exitFailure, "run the command with sudo"},
	} {
		w := newWorld(serve(t, c.daemon), append([]string{"portal"}, strings.Fields(c.args)...)...)
		w.Way = func(context.Context, Outlet) (portal.Way, error) { return nil, errors.New("run the command with sudo") }
		if code := w.run(); code != c.code || !strings.Contains(w.out.String()+w.err.String(), c.says) {
			t.Errorf("portal %s: exit status %d\n%s%s", c.args, code, w.out.String(), w.err.String())
		}
	}
}
