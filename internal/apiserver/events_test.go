package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// follow asks a running server for server-sent events, and yields the blocks of lines that it sends.
func follow(t *testing.T, c *api.Client, lastID string) (next func() []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tapgw/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", eventStream)
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if kind := answer.Header.Get("Content-Type"); kind != eventStream || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %q", answer.Status, kind)
	}
	lines := bufio.NewScanner(answer.Body)
	return func() (block []string) {
		t.Helper()
		for lines.Scan() && lines.Text() != "" {
			block = append(block, lines.Text())
		}
		if lines.Err() != nil {
			t.Fatal(lines.Err())
		}
		return block
	}
}

// dataOf is the event of a block, and the number that the block has.
func dataOf(t *testing.T, block []string) (e api.Event, id string) {
	t.Helper()
	for _, line := range block {
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				t.Fatal(err)
			}
		}
		if text, ok := strings.CutPrefix(line, "id: "); ok {
			id = text
		}
	}
	return e, id
}

// TestServerSentEvents: who returns gets what was missed, once and in its order, then the present states, then what happens.
func TestServerSentEvents(t *testing.T) {
	fake := newFake()
	c, _ := serving(t, fake)
	next := follow(t, c, "")
	for _, uplink := range []string{"fiber", "lte"} {
		if e, id := dataOf(t, next()); e.Kind != api.EventSnapshot || e.Uplink != uplink || id != "" {
			t.Errorf("%+v with number %q", e, id)
		}
	}
	if begun := next(); len(begun) != 2 || begun[0] != "retry: 2000" || !strings.HasPrefix(begun[1], "id: ") {
		t.Errorf("%q", begun)
	}
	fake.Publish(api.Event{Kind: api.EventState, Uplink: "lte", Message: "one\ntwo"})
	e, seen := dataOf(t, next())
	if e.Message != "one\ntwo" || seen != fmt.Sprint(e.ID) {
		t.Errorf("%+v with number %q", e, seen)
	}
	fake.Publish(api.Event{Message: "missed"})
	fake.Publish(api.Event{Message: "missed too"})
	next = follow(t, c, seen)
	for _, want := range []string{"missed", "missed too", "", "no reply"} {
		if e, _ := dataOf(t, next()); e.Message != want {
			t.Errorf("%+v, want %q", e, want)
		}
	}
	next()
	fake.Publish(api.Event{Message: "new"})
	if e, _ := dataOf(t, next()); e.Message != "new" {
		t.Errorf("%+v", e)
	}
}

func TestHubRemembersTheLatest(t *testing.T) {
	older, h := NewHub(), NewHub()
	_, first := h.Missed(0)
	for i := range remembered + 5 {
		h.Publish(api.Event{Message: fmt.Sprint(i)})
	}
	missed, last := h.Missed(0)
	if len(missed) != remembered || missed[0].Message != "5" || missed[remembered-1].ID != last || last != first+remembered+5 {
		t.Errorf("%d events from %+v to %d", len(missed), missed[0], last)
	}
	if missed, _ := h.Missed(last); len(missed) != 0 {
		t.Errorf("after the latest: %+v", missed)
	}
	if _, before := older.Missed(0); before > first {
		t.Errorf("an older hub is at %d, a new one begins with %d", before, first)
	}
}
