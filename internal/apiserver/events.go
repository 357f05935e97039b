package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"tapgw/api"
)

const (
	eventStream = "text/event-stream"
	// retryMs is how long browsers and their like wait before they follow again.
	retryMs = 2000
)

// events sends the present states, then what happens, until the client leaves or lags too far behind.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if !s.follow(w, s.followers) {
		return
	}
	defer s.followers.leave()
	feed, stop := s.backend.Subscribe() // before the snapshot, so that no event falls between
	defer stop()
	out := newEventWriter(w, r)
	last := out.begin(s, r)
	if out.err != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e, open := <-feed:
			if !open {
				return
			}
			if e.ID <= last {
				continue // was among the missed ones
			}
			if out.send(e); out.flush() != nil {
				return
			}
		}
	}
}

// places hold one token for each that is taken.
type places chan struct{}

func (p places) leave() { <-p }

// follow takes one of the places, or tells that there is none.
func (s *Server) follow(w http.ResponseWriter, among places) bool {
	select {
	case among <- struct{}{}:
		return true
	default:
		s.fail(w, fmt.Errorf("%w: %d programs follow the events already", api.ErrBusy, maxFollowers))
		return false
	}
}

// eventWriter writes events as lines of JSON, or as server-sent events.
type eventWriter struct {
	w   http.ResponseWriter
	sse bool
	err error
}

func newEventWriter(w http.ResponseWriter, r *http.Request) *eventWriter {
	out := &eventWriter{w: w, sse: strings.Contains(r.Header.Get("Accept"), eventStream)}
	kind := "application/x-ndjson"
	if out.sse {
		kind = eventStream
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	return out
}

// begin sends what a follower who returns has missed and the present states, and says which event was the latest by then.
func (o *eventWriter) begin(s *Server, r *http.Request) (last uint64) {
	seen, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	missed, last := s.backend.Missed(seen)
	if err == nil {
		for _, e := range missed {
			o.send(e)
		}
	}
	for _, e := range s.snapshot() {
		o.send(e)
	}
	if o.sse {
		o.write("retry: %d\nid: %d\n\n", retryMs, last)
	}
	_ = o.flush()
	return last
}

func (s *Server) snapshot() []api.Event {
	var list []api.Event
	for _, u := range s.backend.Status().Uplinks {
		list = append(list, api.Event{Time: s.now(), Kind: api.EventSnapshot, Uplink: u.Name, To: u.State, Message: u.Reason})
	}
	return list
}

// send writes one event; after an error it does nothing. A snapshot leaves the follower's last number as it is.
func (o *eventWriter) send(e api.Event) {
	text, err := json.Marshal(e)
	switch {
	case err != nil:
		o.err = err
	case !o.sse:
		o.write("%s\n", text)
	case e.ID == 0:
		o.write("data: %s\n\n", text)
	default:
		o.write("id: %d\ndata: %s\n\n", e.ID, text)
	}
}

func (o *eventWriter) write(format string, args ...any) {
	if o.err != nil {
		return
	}
	extend(o.w)
	_, o.err = fmt.Fprintf(o.w, format, args...)
}

func (o *eventWriter) flush() error {
	if o.err == nil {
		o.err = http.NewResponseController(o.w).Flush()
	}
	return o.err
}
