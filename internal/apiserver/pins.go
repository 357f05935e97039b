package apiserver

import (
	"fmt"
	"net/http"
	"net/netip"

	"tapgw/api"
)

// pins answers GET /v1/pins.
func (s *Server) pins(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, append([]api.Pin{}, s.backend.Pins()...)) // never null
}

// pinHost answers POST /v1/pins.
func (s *Server) pinHost(r *http.Request) (string, error) {
	p, err := pinOf(r)
	if err != nil {
		return "", err
	}
	if r.URL.Query().Has("seconds") {
		length, err := lengthOf(r, api.MaxPin)
		if err != nil {
			return "", err
		}
		p.Until = s.now().Add(length)
	}
	p.Uplink = r.URL.Query().Get("uplink")
	return fmt.Sprintf("%s by %s", whoOf(&p), p.Uplink), s.backend.PinHost(p)
}

// unpin answers DELETE /v1/pins.
func (s *Server) unpin(r *http.Request) (string, error) {
	p, err := pinOf(r)
	if err != nil {
		return "", err
	}
	return whoOf(&p), s.backend.Unpin(p.Inside, p.Site)
}

// whoOf names the client and the site of a pin, for the log.
func whoOf(p *api.Pin) string {
	if !p.Inside.IsValid() {
		return fmt.Sprintf("this host to %q", p.Site)
	}
	return fmt.Sprintf("%s to %q", p.Inside, p.Site)
}

// pinOf is whom a request names.
func pinOf(r *http.Request) (p api.Pin, err error) {
	q := r.URL.Query()
	p.Site = q.Get("site")
	if inside := q.Get("inside"); inside != "" {
		if p.Inside, err = netip.ParseAddr(inside); err != nil {
			return p, fmt.Errorf("%w: inside must be the address of a host", api.ErrBadRequest)
		}
	}
	return p, nil
}
