package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"tapgw/api"
)

// liveEvery is how often who looks gets what has changed.
const liveEvery = time.Second

// live sends the status, and from then on what changes of it and what happens, as server-sent events.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if !s.follow(w, s.lookers) {
		return
	}
	defer s.lookers.leave()
	feed, stop := s.backend.Subscribe()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = fmt.Fprintf(w, "retry: %d\n\n", liveEvery.Milliseconds()) // of the browser, when we are gone
	ticks := time.NewTicker(liveEvery)
	defer ticks.Stop()
	out := stream{w: w, mayChange: s.allowed(peerOf(r.Context()))}
	for err := out.status(s.backend.Status()); err == nil; {
		select {
		case <-r.Context().Done():
			return
		case <-ticks.C:
			err = out.status(s.backend.Status())
		case e, open := <-feed:
			if !open {
				return
			}
			err = out.send("event", e)
		}
	}
}

// stream is one who looks, and what was sent to it.
type stream struct {
	w         http.ResponseWriter
	mayChange bool
	shape     string // what seldom changes
	uplinks   map[string]string
}

// status sends all of it where something changed that seldom does, else the uplinks that are not as before.
func (o *stream) status(now api.Status) error {
	rare := now
	rare.Uplinks, rare.Sessions, rare.UptimeS = nil, 0, 0
	shape := compact(rare)
	delta := api.LiveDelta{Sessions: now.Sessions, UptimeS: now.UptimeS, Uplinks: []api.Uplink{}}
	sent := make(map[string]string, len(now.Uplinks))
	for _, u := range now.Uplinks {
		sent[u.Name] = compact(u)
		shape += compact(u.Name)
		if sent[u.Name] != o.uplinks[u.Name] {
			delta.Uplinks = append(delta.Uplinks, u)
		}
	}
	whole := shape != o.shape
	o.shape, o.uplinks = shape, sent
	if whole {
		return o.send("snapshot", api.LiveSnapshot{MayChange: o.mayChange, Status: now})
	}
	return o.send("delta", delta)
}

func compact(v any) string {
	text, _ := json.Marshal(v) // of plain values, which cannot fail
	return string(text)
}

func (o *stream) send(kind string, v any) error {
	extend(o.w)
	if _, err := fmt.Fprintf(o.w, "event: %s\ndata: %s\n\n", kind, compact(v)); err != nil {
		return err
	}
	return http.NewResponseController(o.w).Flush()
}

// history answers GET /v1/history.
func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	h, ok := s.backend.History(r.URL.Query().Get("span"))
	if !ok {
		writeError(w, http.StatusBadRequest, `wrong parameter "span"`, fmt.Sprintf("write one of %v", api.Spans()))
		return
	}
	writeJSON(w, h)
}

// pastEvents answers GET /v1/history/events.
func (s *Server) pastEvents(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, append([]api.Event{}, s.backend.PastEvents()...))
}
