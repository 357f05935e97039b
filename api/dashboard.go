package api

import "encoding/json"

// Dashboard says where the page for a browser is: GET /v1/dashboard, and POST /v1/dashboard/sign-in for a URL that signs in, once.
type Dashboard struct {
	URL string `json:"url"` // "" where it is not served
}

// LiveSnapshot is the first event of GET /v1/live (at the dashboard's address), and comes again when something changes that
// LiveDelta does not tell.
type LiveSnapshot struct {
	MayChange bool   `json:"may_change"` // who asks has signed in
	Status    Status `json:"status"`
}

// LiveDelta is what has changed in a second.
type LiveDelta struct {
	Sessions int      `json:"sessions"`
	UptimeS  int64    `json:"uptime_s"`
	Uplinks  []Uplink `json:"uplinks"` // that are not as before; never null
}

// SessionGroups is the sessions by what they have in common: GET /v1/sessions/groups.
type SessionGroups struct {
	Sessions int            `json:"sessions"` // that match
	Total    int            `json:"total"`    // groups, of which only the largest are in Groups
	Groups   []SessionGroup `json:"groups"`   // those that carried most first; never null
}

// SessionGroup is the sessions of one uplink, host or site.
type SessionGroup struct {
	Key      string   `json:"key"`
	Host     string   `json:"host,omitempty"` // name of Key, where that is a host with one
	Sessions int      `json:"sessions"`
	BytesOut uint64   `json:"bytes_out"`
	BytesIn  uint64   `json:"bytes_in"`
	Uplinks  []string `json:"uplinks"` // names; never null
}

// MarshalJSON keeps lists from becoming null.
func (g SessionGroups) MarshalJSON() ([]byte, error) {
	type plain SessionGroups
	if g.Groups == nil {
		g.Groups = []SessionGroup{}
	}
	return json.Marshal(plain(g))
}
