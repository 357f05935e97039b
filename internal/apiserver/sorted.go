package apiserver

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"

	"tapgw/api"
)

const (
	defaultSorted = 100  // sessions of a sorted list without a limit
	maxDescribed  = 1000 // sessions whose program is found out to search them, as that takes time
)

// orders are those of sorted lists.
var orders = map[string]func(x, y api.Session) int{
	"":            nil,
	api.SortBytes: api.ByBytes,
	api.SortRate: func(x, y api.Session) int {
		return cmp.Or(cmp.Compare(y.InBps+y.OutBps, x.InBps+x.OutBps), api.ByBytes(x, y))
	},
	api.SortAge: func(x, y api.Session) int { return cmp.Or(cmp.Compare(x.AgeS, y.AgeS), api.ByBytes(x, y)) },
}

// sortedSessions answers with the first in an order, and finds out of them what takes longer.
func (s *Server) sortedSessions(w http.ResponseWriter, r *http.Request, f api.Filter) {
	list := first{order: orders[f.Sort], limit: min(cmp.Or(f.Limit, defaultSorted), api.MaxSorted)}
	found := newSearch(f.Match)
	s.backend.RatedSessions(r.Context(), func(one api.Session) bool {
		if matches(f, &one) && (found.in(&one) || found.described(&one, s.backend.Describe)) {
			list.add(one)
		}
		return r.Context().Err() == nil
	})
	list.cut()
	for i := range list.sessions {
		s.backend.Describe(&list.sessions[i])
	}
	writeJSON(w, list.sessions)
}

// first keeps the first sessions in an order, of however many.
type first struct {
	order    func(x, y api.Session) int
	limit    int
	sessions []api.Session
	full     bool // there have been more than the limit, and the last of those within it is in its place
}

func (l *first) add(s api.Session) {
	if l.full && l.order(s, l.sessions[l.limit-1]) > 0 {
		return
	}
	if l.sessions = append(l.sessions, s); len(l.sessions) >= 2*l.limit {
		l.cut()
		l.full = true
	}
}

func (l *first) cut() {
	slices.SortFunc(l.sessions, l.order)
	l.sessions = append([]api.Session{}, l.sessions[:min(len(l.sessions), l.limit)]...)
}

// search looks for a text in sessions.
type search struct {
	text []byte // in small letters
	line []byte
	left int // sessions that may still be described
}

func newSearch(text string) *search {
	return &search{text: bytes.ToLower([]byte(text)), left: maxDescribed}
}

// in reports whether what is known of a session has the text.
func (q *search) in(s *api.Session) bool {
	if len(q.text) == 0 {
		return true
	}
	q.line = s.Remote.AppendTo(append(s.Inside.AppendTo(q.line[:0]), ' '))
	for _, part := range []string{s.Proto, s.Uplink, s.State, s.Rule, s.Program, s.Domain, s.Host} {
		q.line = append(append(q.line, ' '), part...)
	}
	return bytes.Contains(bytes.ToLower(q.line), q.text)
}

// described reports whether what can be found out of a session has the text.
func (q *search) described(s *api.Session, describe func(*api.Session)) bool {
	if q.left == 0 {
		return false
	}
	q.left--
	describe(s)
	return q.in(s)
}
