package top

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"tapgw/api"
)

// ends tell one session from all others.
type ends struct {
	proto          string
	inside, remote netip.AddrPort
}

func endsOf(s *api.Session) ends { return ends{s.Proto, s.Inside, s.Remote} }

// sessionAt is where the selected session is in the list, -1 for nowhere.
func (m *model) sessionAt() int {
	return slices.IndexFunc(m.sessions, func(s api.Session) bool { return endsOf(&s) == m.session })
}

// switchTable has up and down select sessions, or uplinks again.
func (m *model) switchTable() {
	if m.among = !m.among && len(m.sessions) > 0; m.among {
		m.selectSession(min(m.skipped, len(m.sessions)-1))
	}
}

// selectSession selects a session by its place, or the one next to it that there is, and shows it.
func (m *model) selectSession(at int) {
	at = min(max(at, 0), len(m.sessions)-1)
	m.session, m.row = endsOf(&m.sessions[at]), at
	m.skipped = min(max(m.skipped, at-m.page()+1), at)
}

// keepSession follows the selected session to its new place; where it has ended, the one that took its place is selected.
func (m *model) keepSession() {
	if m.among = m.among && len(m.sessions) > 0; !m.among {
		return
	}
	if at := m.sessionAt(); at >= 0 {
		m.selectSession(at)
	} else {
		m.selectSession(m.row)
	}
}

// step selects what is so many lines further down.
func (m *model) step(lines int) tea.Cmd {
	if m.among {
		m.selectSession(m.row + lines)
		return nil
	}
	return m.choose(m.at() + lines)
}

// turn shows other sessions, as many lines further down.
func (m *model) turn(lines int) {
	switch {
	case m.among:
		m.selectSession(m.row + lines)
	case m.skipped+lines < len(m.sessions):
		m.skipped = max(0, m.skipped+lines)
	}
}

// askPin asks what of the selected session's client is to use the selected uplink. Where none is selected, one can be from now on.
func (m *model) askPin() {
	if !m.among {
		if m.switchTable(); m.among {
			m.notice = "Whose? Select a session with up and down, then press P again; esc leaves."
		}
		return
	}
	at := m.sessionAt()
	if at < 0 || m.at() < 0 {
		return
	}
	s, uplink := m.sessions[at], m.selected
	site := cmp.Or(s.Domain, s.Remote.Addr().String())
	pin := func(what, site string) change {
		return saying(what+" uses "+uplink, func(ctx context.Context) error { return m.Client.PinHost(ctx, s.Inside.Addr(), site, uplink, 0) })
	}
	text := fmt.Sprintf("Pin %s to %s? a: for all sites, u: unpin, n: no, s: for %s", client(&s), uplink, site)
	m.question = &question{text, map[string]change{
		"a": pin(client(&s), ""), "s": pin(client(&s)+" to "+site, site), "u": m.unpin(&s),
	}}
}

// client is the host that began a session.
func client(s *api.Session) string {
	if s.Program != "" {
		return "this host"
	}
	return cmp.Or(s.Host, s.Inside.Addr().String())
}

// unpin ends the pin that a session would be placed by.
func (m *model) unpin(s *api.Session) change {
	return func(ctx context.Context) (string, error) {
		list, err := m.Client.Pins(ctx)
		at := slices.IndexFunc(list, func(p api.Pin) bool { return covers(&p, s) })
		if err != nil || at < 0 {
			return client(s) + " is not pinned there", err
		}
		p := list[at]
		return cmp.Or(p.Site, client(s)) + " is not pinned to " + p.Uplink + " any more", m.Client.Unpin(ctx, p.Inside, p.Site)
	}
}

// covers reports whether a pin is for a session.
func covers(p *api.Pin, s *api.Session) bool {
	if p.Inside != s.Inside.Addr() && (p.Inside.IsValid() || s.Program == "") {
		return false
	}
	if a, err := netip.ParseAddr(p.Site); err == nil {
		return a == s.Remote.Addr()
	}
	if prefix, err := netip.ParsePrefix(p.Site); err == nil {
		return prefix.Contains(s.Remote.Addr())
	}
	return p.Site == "" || s.Domain == p.Site || strings.HasSuffix(s.Domain, "."+p.Site)
}
