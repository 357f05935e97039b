package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"tapgw/api"
)

func TestControls(t *testing.T) {
	fake := newFake()
	fake.Probes = []api.Probe{{Uplink: "lte"}, {Uplink: "fiber"}}
	c, _ := serving(t, fake)
	ctx := t.Context()
	err := errors.Join(c.Prefer(ctx, "lte"), c.Prefer(ctx, ""), c.SetMetered(ctx, "lte", api.MeteredOn), c.Pause(ctx, 90*time.Second),
		c.Pause(ctx, 10*time.Millisecond), c.Resume(ctx), c.Pin(ctx, "lte"))
	list, failed := c.Probe(ctx, "lte")
	want := fmt.Sprintf(`[prefer "lte" prefer "" metered lte on pause 1m30s pause 10ms resume pin lte %d probe lte]`, os.Getpid())
	if got := fmt.Sprint(fake.Calls()); errors.Join(err, failed) != nil || got != want {
		t.Fatal(got, err, failed)
	}
	if len(list) != 1 || list[0].Answers == nil {
		t.Errorf("%+v", list)
	}
	for what, err := range map[string]error{
		"prefer": c.Prefer(ctx, "a/b?c"), "metered": c.SetMetered(ctx, "../x", api.MeteredOff), "pin": c.Pin(ctx, "no"), "probe": second(c.Probe(ctx, "no")),
	} {
		if !errors.Is(err, api.ErrUnknownUplink) {
			t.Errorf("%s: %v", what, err)
		}
		mustContain(t, err, "known uplinks: fiber, lte")
	}
}

// postAs asks as a user.
func postAs(s *Server, target string, uid uint32) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, target, nil)
	s.handler().ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, &peer{uid: uid})))
	return w
}

func second[T any](_ T, err error) error { return err }

func TestControlsRefuseNonsense(t *testing.T) {
	fake := newFake()
	c, _ := serving(t, fake)
	for what, err := range map[string]error{
		"no time": c.Pause(t.Context(), 0), "a negative time": c.Pause(t.Context(), -time.Second), "too long": c.Pause(t.Context(), api.MaxPause+time.Second),
		"no mode": c.SetMetered(t.Context(), "lte", ""), "another mode": c.SetMetered(t.Context(), "lte", "maybe"),
	} {
		if !errors.Is(err, api.ErrBadRequest) || errors.Is(err, api.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := testServer(fake, Options{})
	for _, target := range []string{"/v1/pause?seconds=NaN", "/v1/pause?seconds=Inf", "/v1/pause", "/v1/pause?seconds=1e300"} {
		if w := postAs(s, target, 0); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if len(fake.Calls()) > 0 {
		t.Error(fake.Calls())
	}
}

// TestControlsAreForThePrivileged: others may look only.
func TestControlsAreForThePrivileged(t *testing.T) {
	fake := newFake()
	s := testServer(fake, Options{})
	for _, target := range []string{
		"/v1/prefer?uplink=lte", "/v1/uplinks/lte/metered?mode=on", "/v1/uplinks/lte/pin", "/v1/pause?seconds=9", "/v1/resume", "/v1/probe?uplink=lte",
	} {
		if w := postAs(s, target, 65533); w.Code != http.StatusForbidden || len(fake.Calls()) > 0 {
			t.Errorf("%s: %d, %v", target, w.Code, fake.Calls())
		}
	}
}
