package top

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"

	"tapgw/api"
	"tapgw/internal/human"
)

// sessionHead is what is above the sessions: which they are, and in what order.
func (m *model) sessionHead() []string {
	text := "Sessions by " + m.Sort
	if m.only {
		text += ", of " + m.selected
	}
	if match := m.filter.Value(); match != "" {
		text += fmt.Sprintf(", with %q", match)
	}
	if len(m.sessions) >= maxListed {
		text += fmt.Sprintf(", the first %d", maxListed)
	}
	return []string{"", m.in(strong, human.Cut(human.Clean(text), max(m.width, 1)))}
}

// page is how many sessions there is room for.
func (m *model) page() int {
	return max(1, m.height-len(m.head())-m.uplinkRows()-len(m.sessionHead())-4) // the titles of both tables, the detail, the foot
}

// sessionLines is the table of sessions, of so many lines below its head at most.
func (m *model) sessionLines(rows int) []string {
	g := m.sessionGrid().fit(m.width)
	lines := append(m.sessionHead(), m.in(strong, g.titles()))
	shown := m.sessions[min(m.skipped, len(m.sessions)):]
	for i := range shown[:min(len(shown), max(0, rows))] {
		lines = append(lines, g.line(&shown[i], m.plain))
	}
	return lines
}

// sessionGrid is the table of sessions; what they are sorted by is never left out.
func (m *model) sessionGrid() grid[*api.Session] {
	rank := func(sort string, otherwise int) int {
		if m.Sort == sort {
			return 0
		}
		return otherwise
	}
	g := grid[*api.Session]{
		{title: "WHO", width: 15, grow: true, text: func(s *api.Session, _ int) string { return who(s) }},
		{title: "REMOTE", width: 21, grow: true, text: func(s *api.Session, _ int) string { return remote(s) }},
		{title: "PROTO", width: 5, rank: 5, text: func(s *api.Session, _ int) string { return s.Proto }},
		{title: "UPLINK", width: min(m.nameWidth(), 8), text: func(s *api.Session, _ int) string { return s.Uplink }},
		{title: "DOWN", width: 9, right: true, rank: rank(api.SortRate, 1), text: func(s *api.Session, _ int) string { return human.Rate(s.InBps) }},
		{title: "UP", width: 9, right: true, rank: 2, text: func(s *api.Session, _ int) string { return human.Rate(s.OutBps) }},
		{title: "AGE", width: 5, right: true, rank: rank(api.SortAge, 4), text: func(s *api.Session, _ int) string { return human.Seconds(s.AgeS) }},
		{title: "BYTES", width: 7, right: true, rank: rank(api.SortBytes, 3), text: func(s *api.Session, _ int) string { return human.Amount(s.BytesIn + s.BytesOut) }},
		{title: "WHY", width: 23, grow: true, rank: 1, text: func(s *api.Session, _ int) string { return why(s) }},
	}
	if m.among {
		g = slices.Insert(g, 0, column[*api.Session]{width: 1, text: m.mark})
	}
	return g
}

// mark is a sign at the selected session.
func (m *model) mark(s *api.Session, _ int) string {
	if endsOf(s) == m.session {
		return ">"
	}
	return ""
}

// who is the program of this host that has a session, or the host that began it, by name where one is known.
func who(s *api.Session) string {
	if s.Program != "" {
		return path.Base(s.Program)
	}
	return cmp.Or(s.Host, s.Inside.Addr().String())
}

// remote is whom a session talks to, by name where one is known.
func remote(s *api.Session) string {
	if s.Remote.Port() == 0 {
		return cmp.Or(s.Domain, s.Remote.Addr().String())
	}
	return net.JoinHostPort(cmp.Or(s.Domain, s.Remote.Addr().String()), strconv.Itoa(int(s.Remote.Port())))
}

// why is the rule that chose the uplink's group, and why it was this uplink.
func why(s *api.Session) string {
	if s.Rule == "" {
		return s.Reason
	}
	return s.Rule + ": " + s.Reason
}
