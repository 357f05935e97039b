package tray

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// heard is a run of news, and the clock of it.
type heard struct {
	*testing.T
	news
	now time.Time
	s   api.Status
}

func hear(t *testing.T) *heard {
	h := &heard{T: t, now: noon, s: healthy()}
	h.expect()
	return h
}

// set gives the first uplink a state.
func (h *heard) set(state string) { h.s.Uplinks[0].State = state }

// expect looks after a second and fails the test unless the news have these summaries.
func (h *heard) expect(summaries ...string) (notes []note) {
	h.Helper()
	h.now = h.now.Add(time.Second)
	notes = h.of(h.s, h.now)
	var got []string
	for _, n := range notes {
		got = append(got, n.summary)
	}
	if !slices.Equal(got, summaries) {
		h.Errorf("after %s: told %q, not %q", h.now.Sub(noon), got, summaries)
	}
	return notes
}

func TestFailoverAndRecoveryAreTold(t *testing.T) {
	h := hear(t)
	h.set(api.StateDown)
	h.s.Uplinks[0].Reason = "no reply <b>"
	n := h.expect("fibre is down")
	if n[0].urgent || n[0].body != "New sessions go by usb_0.\nno reply ‹b›" {
		t.Errorf("the note is %+v", n[0])
	}
	h.expect()
	h.set(api.StateUp)
	if back := h.expect("fibre is up"); back[0].topic != n[0].topic {
		t.Error("the note does not take the place of the one before")
	}
}

// TestFlickeringIsToldOnce: after a failure and its end nothing is said for a while; then what is true, if that is new.
func TestFlickeringIsToldOnce(t *testing.T) {
	h := hear(t)
	h.set(api.StateDown)
	h.expect("fibre is down")
	h.set(api.StateUp)
	h.expect("fibre is up")
	for range 10 {
		h.set(api.StateDown)
		h.expect()
		h.set(api.StateUp)
		h.expect()
	}
	h.set(api.StateDown)
	h.expect()
	h.now = h.now.Add(quiet)
	h.expect("fibre is down")
}

// TestWhatSomebodyDidIsNotTold: switching off and on, probing, and what was so before.
func TestWhatSomebodyDidIsNotTold(t *testing.T) {
	h := hear(t)
	for _, state := range []string{api.StateDisabled, api.StateProbing, api.StateUp, api.StateDegraded, api.StateUp} {
		h.set(state)
		h.expect()
	}
	h.forget()
	h.s.Uplinks = nil
	h.expect() // a new daemon that knows nothing yet
	h.s = healthy()
	h.set(api.StateDown)
	h.expect() // it was so when we came
	h.now = h.now.Add(quiet)
	h.set(api.StateUp)
	h.expect("fibre is up")
}

func TestOfflineIsUrgent(t *testing.T) {
	h := hear(t)
	for i := range h.s.Uplinks {
		h.s.Uplinks[i].State = api.StateDown
	}
	for _, n := range h.expect("fibre is down", "usb_0 is down") {
		if !n.urgent || !strings.Contains(n.body, "offline") {
			t.Errorf("the note is %+v", n)
		}
	}
}

func TestUnpluggedAndPlugged(t *testing.T) {
	h := hear(t)
	both := h.s.Uplinks
	h.s.Uplinks = both[:1]
	h.expect("usb_0 is gone")
	h.expect()
	h.s.Uplinks = both
	h.expect("usb_0 is up")
}

func TestPortalIsTold(t *testing.T) {
	h := hear(t)
	h.set(api.StatePortal)
	h.expect("fibre wants you to sign in")
}
