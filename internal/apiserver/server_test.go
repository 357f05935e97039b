package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// eventually waits for what happens in other goroutines without an event to wait for.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("never came true")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestReading(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(5)
	c, _ := serving(t, fake)
	s, err := c.Status(t.Context())
	if err != nil || s.Version != "1.2.3" || len(s.Uplinks) != 2 || s.Uplinks[1].Reason != "no reply" {
		t.Errorf("status %+v, %v", s, err)
	}
	if v, err := c.Version(t.Context()); err != nil || v != "1.2.3" {
		t.Errorf("version %q, %v", v, err)
	}
	if text, err := c.Config(t.Context()); err != nil || !bytes.Contains(text, []byte("tapgw0")) {
		t.Errorf("config %q, %v", text, err)
	}
}

func TestSessionFilters(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(8)
	c, _ := serving(t, fake)
	for _, test := range []struct {
		filter api.Filter
		want   int
	}{
		{api.Filter{}, 8},
		{api.Filter{Limit: 3}, 3},
		{api.Filter{Limit: 100}, 8},
		{api.Filter{Proto: "udp"}, 4},
		{api.Filter{Uplink: "lte", Limit: 2}, 2},
		{api.Filter{Inside: netip.MustParseAddr("10.0.0.1")}, 2},
		{api.Filter{Inside: netip.MustParseAddr("10.0.0.1"), Proto: "tcp"}, 0},
	} {
		list, err := c.Sessions(t.Context(), test.filter)
		if err != nil || len(list) != test.want || list == nil {
			t.Errorf("%+v: %d sessions, %v", test.filter, len(list), err)
		}
	}
	_, err := c.Sessions(t.Context(), api.Filter{Uplink: "dsl"})
	if !errors.Is(err, api.ErrUnknownUplink) {
		t.Error(err)
	}
	mustContain(t, err, "fiber, lte")
}

func TestSortedSessions(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(5000)
	for i := range fake.Table {
		s := &fake.Table[i]
		s.AgeS, s.BytesIn, s.InBps = int64(i), uint64(i*7%5000), float64(i*11%5000)
	}
	fake.Table[4321].Program, fake.Table[4321].Domain = "/usr/bin/Firefox", "www.example.com"
	c, _ := serving(t, fake)
	for _, test := range []struct {
		filter api.Filter
		want   int
		key    func(api.Session) float64 // must fall
		first  float64
	}{
		{api.Filter{Sort: api.SortRate, Limit: 10}, 10, func(s api.Session) float64 { return s.InBps }, 4999},
		{api.Filter{Sort: api.SortBytes}, defaultSorted, func(s api.Session) float64 { return float64(s.BytesIn) }, 4999},
		{api.Filter{Sort: api.SortAge, Limit: 1 << 30}, api.MaxSorted, func(s api.Session) float64 { return -float64(s.AgeS) }, 0},
		{api.Filter{Sort: api.SortAge, Uplink: "lte", Limit: 1}, 1, func(s api.Session) float64 { return -float64(s.AgeS) }, -1},
		{api.Filter{Sort: api.SortRate, Match: "FIREFOX"}, 1, func(s api.Session) float64 { return float64(s.AgeS) }, 4321},
		{api.Filter{Sort: api.SortRate, Match: "Example.com"}, 1, func(s api.Session) float64 { return float64(s.AgeS) }, 4321},
		{api.Filter{Sort: api.SortAge, Match: ":4999 "}, 1, func(s api.Session) float64 { return float64(s.AgeS) }, 4999},
		{api.Filter{Sort: api.SortAge, Match: "nobody"}, 0, nil, 0},
	} {
		list, err := c.Sessions(t.Context(), test.filter)
		if err != nil || len(list) != test.want || list == nil {
			t.Errorf("%+v: %d sessions, %v", test.filter, len(list), err)
			continue
		}
		for i := range list {
			if i == 0 && test.key(list[0]) != test.first || i > 0 && test.key(list[i]) > test.key(list[i-1]) {
				t.Errorf("%+v: number %d is %+v", test.filter, i, list[i])
			}
		}
	}
	if list, err := c.Sessions(t.Context(), api.Filter{Match: "lte", Limit: 7}); err != nil || len(list) != 7 || list[0].Uplink != "lte" {
		t.Errorf("%d sessions without an order, %v", len(list), err)
	}
}

func TestManySessions(t *testing.T) {
	fake := newFake()
	fake.Table = sessions(20_000)
	c, _ := serving(t, fake)
	list, err := c.Sessions(t.Context(), api.Filter{})
	if err != nil || len(list) != len(fake.Table) {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
}

// get asks the handler of s directly, as nobody in particular.
func get(s *Server, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func TestWrongRequests(t *testing.T) {
	s := testServer(newFake(), Options{})
	for target, code := range map[string]int{
		"GET /v1/sessions?limit=x":          400,
		"GET /v1/sessions?limit=-1":         400,
		"GET /v1/sessions?inside=nobody":    400,
		"GET /v1/sessions?colour=red":       400,
		"GET /v1/sessions?sort=colour":      400,
		"GET /v1/why":                       400,
		"GET /v1/why?dst=nobody":            400,
		"GET /v1/why?dst=1.1.1.1&port=x":    400,
		"GET /v1/why?dst=1.1.1.1&dscp=64":   400,
		"GET /v1/why?dst=fe80::1%25lo":      400,
		"GET /v1/why?dst=1.1.1.1&proto=gre": 400,
		"GET /v1/why?dst=1.1.1.1&colour=1":  400,
		"GET /v1/nothing":                   404,
		"GET /":                             404,
		"GET /metrics":                      404, // none were given
		"POST /v1/status":                   404,
		"GET /v1/reload":                    404,
		"POST /v1/reload":                   403,
		"POST /v1/uplinks/lte/enable":       403,
	} {
		method, path, _ := strings.Cut(target, " ")
		w := get(s, method, path)
		var e api.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); w.Code != code || err != nil || e.Message == "" || e.Hint == "" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestBackendErrors(t *testing.T) {
	for err, hint := range map[error]string{
		api.ErrUnknownUplink: "known uplinks: fiber, lte",
		api.ErrConflict:      "",
		api.ErrBadConfig:     "tapgw config check",
	} {
		fake := newFake()
		fake.Err = fmt.Errorf("%w: line 3", err)
		c, _ := serving(t, fake)
		_, configErr := c.Config(t.Context())
		for _, got := range []error{c.Reload(t.Context()), c.SetUplink(t.Context(), "fiber", true), configErr} {
			if !errors.Is(got, err) {
				t.Errorf("%v became %v", err, got)
			}
			mustContain(t, got, "line 3", hint)
		}
	}
	fake := newFake()
	fake.State.Uplinks = nil
	c, _ := serving(t, fake)
	mustContain(t, c.SetUplink(t.Context(), "../x", true), `"../x"`, "no uplinks")
}

func TestChanging(t *testing.T) {
	fake := newFake()
	c, _ := serving(t, fake)
	err := errors.Join(c.SetUplink(t.Context(), "lte", false), c.SetUplink(t.Context(), "lte", true), c.Reload(t.Context()),
		c.SetUsage(t.Context(), "lte", 1<<63))
	if got := fmt.Sprint(fake.Calls()); err != nil || got != "[set lte false set lte true reload usage lte 9223372036854775808]" {
		t.Fatal(got, err)
	}
}

func TestUsage(t *testing.T) {
	fake := newFake()
	fake.State.Uplinks[1].Metered = true
	fake.State.Uplinks[1].Usage = api.Usage{UsedBytes: 1<<64 - 1, CapBytes: 20e9, State: api.UsageStopped}
	c, _ := serving(t, fake)
	list, err := c.Usage(t.Context())
	if err != nil || len(list) != 2 || list[1] != (api.UplinkUsage{Uplink: "lte", Metered: true, Usage: fake.State.Uplinks[1].Usage}) {
		t.Errorf("%+v, %v", list, err)
	}
	fake.State.Uplinks = nil
	if list, err = c.Usage(t.Context()); err != nil || list == nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestEventsBeginWithASnapshot(t *testing.T) {
	fake := newFake()
	c, _ := serving(t, fake)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	err := c.Events(ctx, func(e api.Event) {
		got = append(got, e.Kind+" "+e.Uplink+" "+e.To)
		switch len(got) {
		case 2:
			fake.Publish(api.Event{Kind: api.EventState, Uplink: "lte", From: "down", To: "up"})
		case 3:
			cancel()
		}
	})
	if want := "[snapshot fiber up snapshot lte down state lte up]"; err != nil || fmt.Sprint(got) != want {
		t.Fatal(got, err)
	}
	eventually(t, func() bool { return fake.count() == 0 })
}

func (h *Hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.followers)
}

func TestSlowFollowerIsDropped(t *testing.T) {
	h := NewHub()
	slow, stopSlow := h.Subscribe()
	quick, stopQuick := h.Subscribe()
	for i := range followerBacklog + 1 {
		h.Publish(api.Event{Message: fmt.Sprint(i)})
		<-quick
	}
	n := 0
	for range slow { // ends because the channel was closed
		n++
	}
	if n != followerBacklog || h.count() != 1 {
		t.Fatalf("%d events, %d followers", n, h.count())
	}
	stopSlow()
	stopQuick()
	stopQuick()
	h.Publish(api.Event{})
}

func TestDroppedFollowerSeesTheEnd(t *testing.T) {
	fake := newFake()
	c, _ := serving(t, fake)
	err := c.Events(t.Context(), func(e api.Event) {
		if e.Uplink == "lte" { // the last of the snapshot
			fake.mu.Lock()
			defer fake.mu.Unlock()
			for f := range fake.followers {
				fake.drop(f)
			}
		}
	})
	if !errors.Is(err, api.ErrStreamEnded) {
		t.Fatal(err)
	}
}

func TestFollowersAreBounded(t *testing.T) {
	s := testServer(newFake(), Options{})
	for range maxFollowers {
		s.followers <- struct{}{}
	}
	if w := get(s, http.MethodGet, "/v1/events"); w.Code != http.StatusServiceUnavailable {
		t.Fatal(w.Code, w.Body)
	}
}

func TestStopEndsFollowers(t *testing.T) {
	fake := newFake()
	c, stop := serving(t, fake)
	followed := make(chan struct{}, 2)
	ended := make(chan error)
	go func() {
		ended <- c.Events(context.Background(), func(api.Event) { followed <- struct{}{} })
	}()
	<-followed
	stop()
	if err := <-ended; !errors.Is(err, api.ErrStreamEnded) {
		t.Fatal(err)
	}
}

// FuzzRequests: whatever a client sends, the answer is complete, and every refusal says why in JSON.
func FuzzRequests(f *testing.F) {
	for _, target := range []string{
		"/v1/status", "/v1/sessions?uplink=lte&limit=2", "/v1/sessions?inside=10.0.0.1&proto=tcp", "/v1/config", "/v1/version",
		"/v1/why?dst=1.1.1.1&port=443&proto=udp&from=10.0.0.2&from_port=9&dscp=46",
		"/v1/uplinks/lte/disable", "/v1/usage", "/v1/uplinks/lte/usage?used_bytes=5", "/v1/uplinks/lte/usage", "/v1/uplinks/%2e%2e/enable", "/v1/uplinks//enable", "/v1/reload", "/metrics", "//",
		"/v1/prefer?uplink=lte", "/v1/uplinks/lte/metered?mode=on", "/v1/pause?seconds=1e9", "/v1/resume", "/v1/uplinks/lte/pin", "/v1/probe", "/v1/../v1/status",
		"/v1/history?span=day", "/v1/history/events", "/v1/sessions/groups?by=site&filter=a", "/v1/dashboard", "/v1/dashboard/sign-in",
	} {
		f.Add(http.MethodGet, target, []byte(nil), true)
		f.Add(http.MethodPost, target, []byte(`{"enabled":true}`), false)
	}
	fake := newFake()
	fake.Table = sessions(3)
	handler := testServer(fake, Options{Metrics: fakeMetrics()}).handler()
	f.Fuzz(func(t *testing.T, method, target string, body []byte, privileged bool) {
		req, err := http.NewRequest(method, "http://tapgw"+target, bytes.NewReader(body))
		if err != nil || strings.HasPrefix(req.URL.Path, "/v1/events") {
			return // not a request, or one that never ends
		}
		uid := uint32(65533)
		if privileged {
			uid = 0
		}
		before := len(fake.Calls())
		req = req.WithContext(context.WithValue(t.Context(), peerKey{}, &peer{uid: uid}))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		var refusal api.Error
		if w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &refusal) != nil || refusal.Message == "") {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		if !privileged && len(fake.Calls()) != before {
			t.Errorf("%s %s changed something", method, target)
		}
	})
}
