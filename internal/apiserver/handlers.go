package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tapgw/api"
)

// handler is everything on the unix socket.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/version", s.version)
	mux.HandleFunc("GET /v1/access", s.access)
	mux.HandleFunc("GET /v1/sessions", s.sessions)
	mux.HandleFunc("GET /v1/why", s.why)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("GET /v1/config", s.config)
	mux.HandleFunc("GET /v1/usage", s.usage)
	mux.HandleFunc("GET /v1/history", s.history)
	mux.HandleFunc("GET /v1/history/events", s.pastEvents)
	mux.HandleFunc("GET /v1/sessions/groups", s.groups)
	mux.HandleFunc("GET /v1/dashboard", s.dashboardURL)
	mux.HandleFunc("POST /v1/dashboard/sign-in", s.guard(s.admit))
	mux.HandleFunc("POST /v1/uplinks/{name}/usage", s.guard(s.setUsage))
	mux.HandleFunc("POST /v1/reload", s.guard(s.reload))
	mux.HandleFunc("POST /v1/uplinks/{name}/enable", s.guard(s.setUplink(true)))
	mux.HandleFunc("POST /v1/uplinks/{name}/disable", s.guard(s.setUplink(false)))
	s.addControls(mux)
	s.addMetrics(mux)
	return jsonErrors(mux)
}

func (s *Server) metricsOnly() http.Handler {
	mux := http.NewServeMux()
	s.addMetrics(mux)
	return jsonErrors(mux)
}

func (s *Server) addMetrics(mux *http.ServeMux) {
	if s.opts.Metrics != nil {
		mux.Handle("GET /metrics", s.opts.Metrics)
	}
}

// bound limits the size of a request, the time in which it must be there, and that which its answer may take. It comes before all
// other handlers, as a refusal too has the server wait for the rest of the request.
func bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // else the deadline would end the answer
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		extend(w)
		next.ServeHTTP(w, r)
	})
}

// extend grants the client another answerTimeout to take what is written; recorders in tests have no deadline.
func extend(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
}

// jsonErrors answers what the mux does not know (404, 405) in the form of all other errors.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			writeError(w, http.StatusNotFound, fmt.Sprintf("no %s %s here", r.Method, r.URL.Path),
				"the daemon and the client may be of different versions")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// joinHint is what the unprivileged can do; where no package was installed there is no group yet.
const joinHint = "use sudo, or: sudo groupadd -f " + Group + "; sudo usermod -aG " + Group + " $USER; log in again"

// access tells beforehand what guard would.
func (s *Server) access(w http.ResponseWriter, r *http.Request) {
	a := api.Access{Change: s.allowed(peerOf(r.Context()))}
	if !a.Change {
		a.Hint = joinHint
	}
	writeJSON(w, a)
}

// guard lets only the privileged through.
func (s *Server) guard(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.allowed(peerOf(r.Context())) {
			writeError(w, api.StatusCode(api.ErrDenied), "you may look but not change anything", joinHint)
			return
		}
		next(w, r)
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.backend.Status()) }

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, api.Version{Version: s.backend.Status().Version})
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request) {
	text, err := s.backend.Config()
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(text)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	p := peerOf(r.Context())
	if err := s.backend.Reload(); err != nil {
		s.log.Warn("reload refused", "uid", p.uid, "pid", p.pid, "err", err)
		s.fail(w, err)
		return
	}
	s.log.Info("configuration reloaded", "uid", p.uid, "pid", p.pid)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) setUplink(enabled bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name, p := r.PathValue("name"), peerOf(r.Context())
		if err := s.backend.SetUplink(name, enabled); err != nil {
			s.fail(w, err)
			return
		}
		s.log.Info("uplink set", "uplink", name, "enabled", enabled, "uid", p.uid, "pid", p.pid)
		w.WriteHeader(http.StatusNoContent)
	}
}

// sessions streams the list, so that the size of the table never is the size of an answer in memory.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "parameters are uplink, proto, inside, match, sort and limit")
		return
	}
	if f.Uplink != "" && !s.known(f.Uplink) {
		s.fail(w, fmt.Errorf("%w: %q", api.ErrUnknownUplink, f.Uplink))
		return
	}
	if f.Sort != "" {
		s.sortedSessions(w, r, f)
		return
	}
	list := newListWriter(w)
	left, found := f.Limit, newSearch(f.Match)
	s.backend.Sessions(func(one api.Session) bool {
		if !matches(f, &one) || !found.in(&one) {
			return r.Context().Err() == nil
		}
		if !list.add(one) {
			return false
		}
		left--
		return left != 0
	})
	list.end()
}

func parseFilter(r *http.Request) (api.Filter, error) {
	var f api.Filter
	for key, values := range r.URL.Query() {
		var err error
		switch v := values[0]; key {
		case "uplink":
			f.Uplink = v
		case "proto":
			f.Proto = v
		case "inside":
			f.Inside, err = netip.ParseAddr(v)
		case "match":
			f.Match = v
		case "sort":
			f.Sort = v
		case "limit":
			f.Limit, err = strconv.Atoi(v)
		default:
			err = errors.New("unknown parameter")
		}
		if _, known := orders[f.Sort]; err != nil || f.Limit < 0 || !known {
			return f, fmt.Errorf("wrong parameter %q", key)
		}
	}
	return f, nil
}

func matches(f api.Filter, s *api.Session) bool {
	return (f.Uplink == "" || f.Uplink == s.Uplink) &&
		(f.Proto == "" || f.Proto == s.Proto) &&
		(!f.Inside.IsValid() || f.Inside == s.Inside.Addr())
}

func (s *Server) known(uplink string) bool {
	for _, u := range s.backend.Status().Uplinks {
		if u.Name == uplink {
			return true
		}
	}
	return false
}

// fail answers err, with a hint where there is one.
func (s *Server) fail(w http.ResponseWriter, err error) {
	code, hint := api.StatusCode(err), ""
	switch {
	case errors.Is(err, api.ErrUnknownUplink):
		hint = s.uplinkNames()
	case errors.Is(err, api.ErrBadConfig):
		hint = "the old configuration stays in force; check the file with: tapgw config check"
	case code == http.StatusInternalServerError:
		s.log.Error("request failed", "err", err)
	}
	writeError(w, code, err.Error(), hint)
}

func (s *Server) uplinkNames() string {
	var names []string
	for _, u := range s.backend.Status().Uplinks {
		names = append(names, u.Name)
	}
	if len(names) == 0 {
		return "there are no uplinks at present"
	}
	return "known uplinks: " + strings.Join(names, ", ")
}
