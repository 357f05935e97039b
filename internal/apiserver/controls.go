package apiserver

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"tapgw/api"
)

func (s *Server) addControls(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/prefer", s.changer("uplink preferred", s.prefer))
	mux.HandleFunc("POST /v1/uplinks/{name}/metered", s.changer("uplink metered", s.setMetered))
	mux.HandleFunc("POST /v1/uplinks/{name}/pin", s.changer("process pinned to an uplink", s.pin))
	mux.HandleFunc("GET /v1/pins", s.pins)
	mux.HandleFunc("POST /v1/pins", s.changer("host pinned to an uplink", s.pinHost))
	mux.HandleFunc("DELETE /v1/pins", s.changer("host pinned no longer", s.unpin))
	mux.HandleFunc("POST /v1/pause", s.changer("capture paused", s.pause))
	mux.HandleFunc("POST /v1/resume", s.changer("capture resumed", s.resume))
	mux.HandleFunc("POST /v1/probe", s.guard(s.probe))
}

// changer serves requests that change something, for the privileged, and has in the log who did what.
func (s *Server) changer(done string, change func(*http.Request) (what string, err error)) http.HandlerFunc {
	return s.guard(func(w http.ResponseWriter, r *http.Request) {
		what, err := change(r)
		if err != nil {
			s.fail(w, err)
			return
		}
		p := peerOf(r.Context())
		s.log.Info("changed by command", "done", done, "what", what, "uid", p.uid, "pid", p.pid)
		w.WriteHeader(http.StatusNoContent)
	})
}

func (s *Server) prefer(r *http.Request) (string, error) {
	name := r.URL.Query().Get("uplink")
	return name, s.backend.Prefer(name)
}

func (s *Server) setMetered(r *http.Request) (string, error) {
	name, mode := r.PathValue("name"), api.Metered(r.URL.Query().Get("mode"))
	switch mode {
	case api.MeteredOn, api.MeteredOff, api.MeteredAuto:
		return name + " " + string(mode), s.backend.SetMetered(name, mode)
	}
	return "", fmt.Errorf("%w: mode must be %s, %s or %s", api.ErrBadRequest, api.MeteredOn, api.MeteredOff, api.MeteredAuto)
}

func (s *Server) pin(r *http.Request) (string, error) {
	name := r.PathValue("name")
	return name, s.backend.Pin(name, int(peerOf(r.Context()).pid))
}

func (s *Server) pause(r *http.Request) (string, error) {
	d, err := lengthOf(r, api.MaxPause)
	if err != nil {
		return "", err
	}
	return d.String(), s.backend.Pause(d)
}

// lengthOf is the time that a request names.
func lengthOf(r *http.Request, most time.Duration) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil || !(seconds > 0 && seconds <= most.Seconds()) { // NaN too
		return 0, fmt.Errorf("%w: seconds must be a number up to %.0f", api.ErrBadRequest, most.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func (s *Server) resume(*http.Request) (string, error) { return "", s.backend.Resume() }

func (s *Server) probe(w http.ResponseWriter, r *http.Request) {
	list, err := s.backend.Probe(r.Context(), r.URL.Query().Get("uplink"))
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, append([]api.Probe{}, list...)) // never null
}
