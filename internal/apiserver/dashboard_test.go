package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tapgw/api"
)

// page stands for that of package web.
var page = fstest.MapFS{
	"index.html": {Data: []byte("<title>dashboard</title>")}, "sign-in.html": {Data: []byte("<title>token?</title>")},
	"style.css": {Data: []byte("body {}")}, "app.js": {Data: []byte("1")},
}

// browser visits a dashboard as one person does.
type browser struct {
	t    *testing.T
	base string
	http *http.Client
}

// browse serves a dashboard until the test ends.
func browse(t *testing.T, b Backend, token string) (browser, *api.Client) {
	t.Helper()
	at := netip.MustParseAddrPort(freeLoopback(t))
	s := testServer(b, Options{Socket: filepath.Join(open(t), "s"), Dashboard: Dashboard{Address: at, Token: token, Page: page}})
	c, _ := start(t, s)
	return newBrowser(t, "http://"+at.String()), c
}

func newBrowser(t *testing.T, base string) browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return browser{t, base, &http.Client{Jar: jar, Transport: transport}}
}

// reply is a whole answer.
type reply struct {
	code    int
	header  http.Header
	cookies []*http.Cookie
	body    string
}

// ask sends a request with some headers, of which "Host" is one.
func (b browser) ask(method, path string, headers ...string) reply {
	b.t.Helper()
	return b.send(method, path, nil, headers...)
}

func (b browser) send(method, path string, form url.Values, headers ...string) reply {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second) // as what is not refused may never end
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	answer, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header, answer.Cookies(), string(body)}
}

func (b browser) want(code int, method, path string, headers ...string) string {
	b.t.Helper()
	r := b.ask(method, path, headers...)
	if r.code != code {
		b.t.Errorf("%s %s %v: status %d, want %d: %s", method, path, headers, r.code, code, r.body)
	}
	return r.body
}

// signIn opens what `tapgw web` prints.
func (b browser) signIn(c *api.Client) (used string) {
	b.t.Helper()
	address, err := c.SignInURL(b.t.Context())
	if err != nil || !strings.HasPrefix(address, b.base+"/") {
		b.t.Fatalf("the URL is %q, %v", address, err)
	}
	used = strings.TrimPrefix(address, b.base)
	if body := b.want(http.StatusOK, http.MethodGet, used); !strings.Contains(body, "dashboard") {
		b.t.Errorf("after signing in: %s", body)
	}
	return used
}

const disable = "/v1/uplinks/fiber/disable"

func TestDashboardShowsAndChangesNothing(t *testing.T) {
	fake := newFake()
	b, _ := browse(t, fake, "")
	for path, part := range map[string]string{
		"/": "dashboard", "/app.js": "1", "/v1/status": `"fiber"`, "/v1/sessions": "[]", "/v1/sessions/groups?by=site": `"groups":[]`,
		"/v1/history?span=live": `"uplinks":[]`, "/v1/history/events": "[]",
	} {
		if body := b.want(http.StatusOK, http.MethodGet, path); !strings.Contains(body, part) {
			t.Errorf("%s: %s does not contain %s", path, body, part)
		}
	}
	b.want(http.StatusForbidden, http.MethodPost, disable)
	b.want(http.StatusForbidden, http.MethodPost, disable, "Cookie", cookieName+"=guess")
	b.want(http.StatusNotFound, http.MethodGet, "/v1/config")
	b.want(http.StatusBadRequest, http.MethodGet, "/v1/history?span=ever")
	b.want(http.StatusBadRequest, http.MethodGet, "/v1/sessions/groups?by=colour")
	if calls := fake.Calls(); len(calls) > 0 {
		t.Errorf("something was changed: %v", calls)
	}
}

func TestSignedInMayChange(t *testing.T) {
	fake := newFake()
	b, c := browse(t, fake, "")
	used := b.signIn(c)
	b.want(http.StatusNoContent, http.MethodPost, disable)
	if calls := fake.Calls(); !slices.Equal(calls, []string{"set fiber false"}) {
		t.Errorf("asked of the daemon: %v", calls)
	}
	other := newBrowser(t, b.base)
	other.want(http.StatusForbidden, http.MethodGet, used) // it counts once
	other.want(http.StatusForbidden, http.MethodPost, disable)
}

func TestSignInCookie(t *testing.T) {
	b, c := browse(t, newFake(), "")
	address, err := c.SignInURL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r := b.ask(http.MethodGet, strings.TrimPrefix(address, b.base))
	if c := r.cookies; len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].MaxAge <= 0 {
		t.Errorf("status %d, cookies %v", r.code, c)
	}
}

// TestForeignPagesChangeNothing: a page of others has the browser send its cookie, or a name of its own lead here.
func TestForeignPagesChangeNothing(t *testing.T) {
	fake := newFake()
	b, c := browse(t, fake, "")
	b.signIn(c)
	for _, headers := range [][]string{
		{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", "http://127.0.0.1:1"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Host", "evil.example"}, {"Host", "evil.example:7380"}, {"Host", "127.0.0.1.evil.example:7380"}, {"Host", "192.0.2.1:7380"},
	} {
		b.want(http.StatusForbidden, http.MethodPost, disable, headers...)
	}
	for _, host := range []string{"evil.example:7380", "192.0.2.1:7380"} {
		for _, path := range []string{"/", "/v1/status", "/v1/live", "/sign-in?key=x"} {
			b.want(http.StatusForbidden, http.MethodGet, path, "Host", host)
		}
	}
	b.want(http.StatusOK, http.MethodGet, "/v1/status", "Host", "localhost:7380")
	b.want(http.StatusNoContent, http.MethodPost, disable, "Origin", b.base, "Sec-Fetch-Site", "same-origin")
	if n := len(fake.Calls()); n != 1 {
		t.Errorf("%d changes, want the last one alone", n)
	}
}

func TestDashboardHeaders(t *testing.T) {
	b, _ := browse(t, newFake(), "")
	for _, path := range []string{"/", "/v1/status", "/nothing", "/sign-in?key=x"} {
		header := b.ask(http.MethodGet, path).header
		policy := header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, part) || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: policy %q", path, policy)
			}
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Access-Control-Allow-Origin": ""} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestTokenGuardsEverything(t *testing.T) {
	const token = "0123456789abcdef"
	fake := newFake()
	b, c := browse(t, fake, token)
	for _, path := range []string{"/app.js", "/index.html", "/v1/status", "/v1/live", "/v1/sessions", "/v1/history?span=live"} {
		b.want(http.StatusUnauthorized, http.MethodGet, path)
	}
	b.want(http.StatusUnauthorized, http.MethodPost, disable)
	if body := b.want(http.StatusOK, http.MethodGet, "/", "Host", "192.0.2.1:7380"); !strings.Contains(body, "token?") {
		t.Errorf("the first page is %s", body)
	}
	for _, wrong := range []string{"", "0", token + "0"} {
		if r := b.send(http.MethodPost, "/sign-in", url.Values{"token": {wrong}}); r.code != http.StatusForbidden {
			t.Errorf("token %q: status %d", wrong, r.code)
		}
	}
	if r := b.send(http.MethodPost, "/sign-in", url.Values{"token": {token}}); r.code != http.StatusOK || !strings.Contains(r.body, "dashboard") {
		t.Errorf("with the token: status %d, %s", r.code, r.body)
	}
	b.want(http.StatusNoContent, http.MethodPost, disable)
	newBrowser(t, b.base).signIn(c) // who has the rights needs no token
}

// TestNoTokenMeansNoTokenSignIn: an empty form must not be the empty token.
func TestNoTokenMeansNoTokenSignIn(t *testing.T) {
	b, _ := browse(t, newFake(), "")
	if r := b.send(http.MethodPost, "/sign-in", url.Values{"token": {""}}); r.code != http.StatusForbidden {
		t.Errorf("status %d", r.code)
	}
}

func TestTicketsEnd(t *testing.T) {
	now := time.Unix(0, 0)
	issued := newTickets(func() time.Time { return now }, time.Minute)
	p := &peer{uid: 7}
	first := issued.issue(p)
	if now = now.Add(time.Minute - 1); issued.holder(first) != p {
		t.Error("it ended too soon")
	}
	if now = now.Add(1); issued.holder(first) != nil || issued.take(first) != nil {
		t.Error("it never ends")
	}
	if once := issued.issue(p); issued.take(once) != p || issued.take(once) != nil {
		t.Error("it does not count once")
	}
	oldest := issued.issue(p)
	for range maxSigned {
		issued.issue(p)
	}
	if issued.holder(oldest) != nil || len(issued.held) > maxSigned {
		t.Errorf("%d are kept", len(issued.held))
	}
}

// TestDashboardAddressInUse: the gateway goes on without, and says what to do.
func TestDashboardAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var log bytes.Buffer
	s := testServer(newFake(), Options{
		Socket: filepath.Join(open(t), "s"), Dashboard: Dashboard{Address: netip.MustParseAddrPort(taken.Addr().String()), Page: page},
	})
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	c, stop := start(t, s)
	if u, err := c.DashboardURL(t.Context()); u != "" || err != nil {
		t.Errorf("it is at %q, %v", u, err)
	}
	_, err = c.SignInURL(t.Context())
	mustContain(t, err, "dashboard.listen")
	stop()
	if text := log.String(); !strings.Contains(text, "dashboard.listen") || !strings.Contains(text, "in use") {
		t.Errorf("the log says: %s", text)
	}
}

// follow reads server-sent events into a channel.
func (b browser) follow(path string) <-chan [2]string {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.base+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := b.http.Do(req) //nolint:bodyclose // by the reader, at its end
	if err != nil || answer.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatalf("%v, %v", answer, err)
	}
	events := make(chan [2]string)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer answer.Body.Close() // which the end of the test interrupts
		var one [2]string
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			if kind, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				one[0] = kind
			} else if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				one[1] = data
				select {
				case events <- one:
				case <-b.t.Context().Done():
					return
				}
			}
		}
	}()
	b.t.Cleanup(func() { <-done })
	return events
}

func next[T any](t *testing.T, events <-chan [2]string, kind string) (v T) {
	t.Helper()
	for {
		select {
		case e := <-events:
			if e[0] != kind {
				continue
			}
			if err := json.Unmarshal([]byte(e[1]), &v); err != nil {
				t.Fatalf("%s: %v", e[1], err)
			}
			return v
		case <-time.After(20 * time.Second):
			t.Fatalf("no %s", kind)
		}
	}
}

func TestLive(t *testing.T) {
	fake := newMoving()
	b, c := browse(t, fake, "")
	events := b.follow("/v1/live")
	if s := next[api.LiveSnapshot](t, events, "snapshot"); s.MayChange || len(s.Status.Uplinks) != 2 {
		t.Errorf("snapshot %+v", s)
	}
	fake.set(func(s *api.Status) { s.Uplinks[1].RxBps = 5e6 })
	for { // a second may pass without a change
		if d := next[api.LiveDelta](t, events, "delta"); len(d.Uplinks) == 1 {
			if d.Uplinks[0].Name != "lte" || d.Uplinks[0].RxBps != 5e6 {
				t.Errorf("delta %+v", d)
			}
			break
		}
	}
	fake.Publish(api.Event{Kind: api.EventState, Uplink: "lte", To: api.StateDown})
	if e := next[api.Event](t, events, "event"); e.Uplink != "lte" || e.To != api.StateDown {
		t.Errorf("event %+v", e)
	}
	fake.set(func(s *api.Status) { s.Uplinks = append(s.Uplinks, api.Uplink{Name: "new"}) })
	if s := next[api.LiveSnapshot](t, events, "snapshot"); len(s.Status.Uplinks) != 3 {
		t.Errorf("snapshot %+v", s)
	}
	b.signIn(c)
	if s := next[api.LiveSnapshot](t, b.follow("/v1/live"), "snapshot"); !s.MayChange {
		t.Error("who has signed in may not change anything")
	}
}
