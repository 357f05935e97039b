package apiserver

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"tapgw/api"
)

func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuestion(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "parameters are dst, port, proto, from, from_port and dscp")
		return
	}
	answer, err := s.backend.Why(q)
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, answer)
}

// parseQuestion reads the parameters; dst must be given, and tcp is meant where no protocol is.
func parseQuestion(r *http.Request) (q api.Question, err error) {
	q.Proto = "tcp"
	var dst, from netip.Addr
	var port, fromPort uint16
	for key, values := range r.URL.Query() {
		known := true
		switch v := values[0]; key {
		case "dst":
			dst, err = netip.ParseAddr(v)
		case "from":
			from, err = netip.ParseAddr(v)
		case "port":
			port, err = number(v, 16)
		case "from_port":
			fromPort, err = number(v, 16)
		case "dscp":
			var n uint16
			n, err = number(v, 6)
			q.DSCP = uint8(n)
		case "proto":
			q.Proto, known = v, v == "tcp" || v == "udp" || v == "icmp"
		default:
			known = false
		}
		if err != nil || !known {
			return q, fmt.Errorf("wrong parameter %q", key)
		}
	}
	dst, from = dst.Unmap(), from.Unmap()
	if !dst.IsValid() || dst.Zone() != "" || from.Zone() != "" {
		return q, fmt.Errorf("wrong parameter %q", "dst")
	}
	q.Remote, q.From = netip.AddrPortFrom(dst, port), netip.AddrPortFrom(from, fromPort)
	return q, nil
}

func number(s string, bits int) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	return uint16(n), err
}
