package apiserver

import (
	"fmt"
	"net/http"
	"strconv"

	"tapgw/api"
)

func (s *Server) usage(w http.ResponseWriter, _ *http.Request) {
	list := []api.UplinkUsage{}
	for _, u := range s.backend.Status().Uplinks {
		list = append(list, api.UplinkUsage{Uplink: u.Name, Metered: u.Metered, Sessions: u.Sessions, Usage: u.Usage})
	}
	writeJSON(w, list)
}

func (s *Server) setUsage(w http.ResponseWriter, r *http.Request) {
	name, p := r.PathValue("name"), peerOf(r.Context())
	bytes, err := strconv.ParseUint(r.URL.Query().Get("used_bytes"), 10, 64)
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("wrong parameter %q", "used_bytes"), "write a number of bytes")
		return
	}
	if err := s.backend.SetUsage(name, bytes); err != nil {
		s.fail(w, err)
		return
	}
	s.log.Info("usage set", "uplink", name, "bytes", bytes, "uid", p.uid, "pid", p.pid)
	w.WriteHeader(http.StatusNoContent)
}
