package apiserver

import (
	"cmp"
	"net/http"
	"slices"

	"tapgw/api"
)

// maxSessionGroups is how many groups of sessions are told of, those that carried most.
const maxSessionGroups = 100

// groups answers GET /v1/sessions/groups: the sessions of each uplink, host or site.
func (s *Server) groups(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	keyOf, ok := groupings[q.Get("by")]
	if !ok {
		writeError(w, http.StatusBadRequest, `wrong parameter "by"`, "write uplink, host, site or session")
		return
	}
	found, wanted := make(map[string]*api.SessionGroup), newSearch(q.Get("filter"))
	answer := api.SessionGroups{}
	s.backend.Sessions(func(one api.Session) bool {
		if wanted.in(&one) {
			answer.Sessions++
			add(found, keyOf(&one), &one)
		}
		return r.Context().Err() == nil
	})
	answer.Total = len(found)
	answer.Groups = largest(found)
	writeJSON(w, answer)
}

var groupings = map[string]func(*api.Session) string{
	"uplink":  func(s *api.Session) string { return s.Uplink },
	"host":    hostOf,
	"site":    siteOf,
	"session": func(s *api.Session) string { return s.Proto + " " + s.Inside.String() + " → " + remoteOf(s) },
}

func hostOf(s *api.Session) string { return s.Inside.Addr().String() }

// siteOf is the name of the remote, or its address where that is not known.
func siteOf(s *api.Session) string { return cmp.Or(s.Domain, s.Remote.Addr().String()) }

func remoteOf(s *api.Session) string {
	if s.Domain == "" {
		return s.Remote.String()
	}
	return s.Domain + " (" + s.Remote.String() + ")"
}

func add(found map[string]*api.SessionGroup, key string, s *api.Session) {
	g := found[key]
	if g == nil {
		g = &api.SessionGroup{Key: key}
		if key == hostOf(s) {
			g.Host = s.Host
		}
		found[key] = g
	}
	g.Sessions++
	g.BytesIn += s.BytesIn
	g.BytesOut += s.BytesOut
	if !slices.Contains(g.Uplinks, s.Uplink) {
		g.Uplinks = append(g.Uplinks, s.Uplink)
	}
}

// largest are the groups that carried most.
func largest(found map[string]*api.SessionGroup) []api.SessionGroup {
	list := make([]api.SessionGroup, 0, len(found))
	for _, g := range found {
		slices.Sort(g.Uplinks)
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b api.SessionGroup) int {
		return cmp.Or(cmp.Compare(b.BytesIn+b.BytesOut, a.BytesIn+a.BytesOut), cmp.Compare(a.Key, b.Key))
	})
	return list[:min(len(list), maxSessionGroups)]
}
