package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"tapgw/api"
	"tapgw/internal/human"
)

// Styles; what they tell is told by a word or a sign as well.
var (
	strong = lipgloss.NewStyle().Bold(true)
	weak   = lipgloss.NewStyle().Faint(true)
	good   = lipgloss.NewStyle().Foreground(lipgloss.Green)
	doubt  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	bad    = lipgloss.NewStyle().Foreground(lipgloss.Red)
)

// View draws the screen.
func (m *model) View() tea.View {
	v := tea.View{AltScreen: true, WindowTitle: "tapgw top"}
	if m.width > 0 && m.height > 0 { // else the terminal has not said yet
		v.SetContent(lipgloss.NewStyle().MaxWidth(m.width).MaxHeight(m.height).Render(m.screen()))
	}
	return v
}

// screen is all lines, as many as the terminal has.
func (m *model) screen() string {
	lines := append(m.head(), m.uplinkLines()...)
	lines = append(lines, m.detail())
	if rest := m.height - len(lines) - 1; rest > 0 {
		lower := m.sessionLines(rest)
		if m.help {
			lower = m.helpLines()
		}
		lines = append(lines, lower[:min(len(lower), rest)]...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return strings.Join(append(lines, m.foot()), "\n")
}

func (m *model) in(s lipgloss.Style, text string) string {
	if m.plain {
		return text
	}
	return s.Render(text)
}

// head says how things are.
func (m *model) head() []string {
	s := &m.status
	verdict := fmt.Sprintf("Internet: %s (%d of %d uplinks usable)", s.Verdict(), s.Usable(), len(s.Uplinks))
	styles := map[string]lipgloss.Style{"online": good, "partial": doubt, "offline": bad}
	verdict = m.in(styles[s.Verdict()].Bold(true), verdict)
	if m.paused {
		verdict += m.in(strong, "  PAUSED")
	}
	return []string{verdict, m.totals(), ""}
}

func (m *model) totals() string {
	if m.lost != nil {
		return m.in(bad, human.Clean("Not up to date: "+m.lost.Error()))
	}
	if until := m.status.PausedUntil; !until.IsZero() {
		return m.in(doubt, "Traffic takes the host's own routes for "+human.Duration(time.Until(until))+" more: tapgw resume")
	}
	var down, up float64
	for _, u := range m.status.Uplinks {
		down, up = down+u.RxBps, up+u.TxBps
	}
	return fmt.Sprintf("%s sessions, down %s, up %s; running for %s", human.Count(m.status.Sessions), human.Rate(down), human.Rate(up), human.Seconds(m.status.UptimeS))
}

// uplinkRows is how many uplinks are shown: half of the screen at most.
func (m *model) uplinkRows() int {
	if m.height == 0 {
		return len(m.status.Uplinks)
	}
	return min(len(m.status.Uplinks), max(1, (m.height-10)/2))
}

// uplinkLines is the table of uplinks, or the part of it around the selected one.
func (m *model) uplinkLines() []string {
	if len(m.status.Uplinks) == 0 {
		return []string{"No uplink found: connect a network that has a default route."}
	}
	g, rows := m.uplinkGrid().fit(m.width), m.uplinkRows()
	begin := min(max(0, m.at()-rows+1), len(m.status.Uplinks)-rows)
	lines := []string{m.in(strong, g.titles())}
	for i := range m.status.Uplinks[begin : begin+rows] {
		lines = append(lines, g.line(numbered{begin + i, &m.status.Uplinks[begin+i]}, m.plain))
	}
	return lines
}

// detail says of the selected uplink what has no room in the table.
func (m *model) detail() string {
	at := m.at()
	if at < 0 {
		return ""
	}
	u := &m.status.Uplinks[at]
	text := "  " + u.Name
	if u.Interface != u.Name {
		text += " by " + u.Interface
	}
	text += fmt.Sprintf(": %s for %s", u.State, human.Since(time.Now(), u.Since))
	if u.Preferred {
		text += ", preferred"
	}
	if u.Metered {
		text += ", metered"
	}
	if u.Reason != "" {
		text += ", " + u.Reason
	}
	if u.Usage.CapBytes > 0 {
		text += fmt.Sprintf(", %s of %s used", human.Amount(u.Usage.UsedBytes), human.Amount(u.Usage.CapBytes))
	}
	return m.in(weak, human.Cut(human.Clean(text), max(m.width, 1)))
}

// numbered is an uplink and its place, counted from 0.
type numbered struct {
	at int
	*api.Uplink
}

const (
	leastGraph = 6
	longName   = 12
)

// nameWidth is how wide the names of uplinks are.
func (m *model) nameWidth() int {
	width := len("UPLINK")
	for _, u := range m.status.Uplinks {
		width = max(width, min(len(u.Name), longName))
	}
	return width
}

// uplinkGrid is the table of uplinks. When printed once it has no graphs, which would show nothing, and nothing is selected.
func (m *model) uplinkGrid() grid[numbered] {
	g := grid[numbered]{
		{title: "", width: 3, rank: 1, text: m.number},
		{title: "UPLINK", width: m.nameWidth(), text: func(u numbered, _ int) string { return u.Name }},
		{title: "STATE", width: 8, text: func(u numbered, _ int) string { return state(u.Uplink) }, style: stateStyle},
		{title: "RTT", width: 6, right: true, rank: 4, text: func(u numbered, _ int) string { return human.RTT(u.rtt()) }},
		{title: "LOSS", width: 5, right: true, rank: 5, text: func(u numbered, _ int) string { return human.Percent(u.Loss) }},
		{title: "SESS", width: 5, right: true, rank: 6, text: func(u numbered, _ int) string { return human.Count(u.Sessions) }},
		{title: "LOAD", width: 4, right: true, rank: 7, text: func(u numbered, _ int) string { return human.Percent(u.Load) }},
		{title: "DOWN", width: 9, right: true, text: func(u numbered, _ int) string { return human.Rate(u.RxBps) }},
		{title: "", width: leastGraph, grow: true, rank: 2, text: func(u numbered, w int) string { return graph(m.past[u.Name].down, w, m.heights()) }},
		{title: "UP", width: 9, right: true, text: func(u numbered, _ int) string { return human.Rate(u.TxBps) }},
		{title: "", width: leastGraph, grow: true, rank: 3, text: func(u numbered, w int) string { return graph(m.past[u.Name].up, w, m.heights()) }},
	}
	if m.plain {
		g = slices.DeleteFunc(g, func(c column[numbered]) bool { return c.title == "" })
	}
	return g
}

func (m *model) heights() []rune {
	if m.ASCII {
		return marks
	}
	return blocks
}

// number is the key that selects an uplink, with signs where it is selected and preferred.
func (m *model) number(u numbered, _ int) string {
	text := []byte("   ")
	if u.Name == m.selected {
		text[0] = '>'
	}
	if u.at < 9 {
		text[1] = '1' + byte(u.at)
	}
	if u.Preferred {
		text[2] = '*'
	}
	return string(text)
}

// rtt is that of the family that sessions can use.
func (u numbered) rtt() float64 {
	if u.IPv6Only() {
		return u.IPv6.RTTMs
	}
	return u.RTTMs
}

func state(u *api.Uplink) string {
	if u.IPv6Only() {
		return u.IPv6.State
	}
	return u.State
}

func stateStyle(u numbered) lipgloss.Style {
	switch state(u.Uplink) {
	case api.StateUp:
		return good
	case api.StateDown:
		return bad
	case api.StateDisabled:
		return weak
	}
	return doubt
}

const shortHelp = "d on/off  p prefer  P pin  f filter  s sort  ? keys  q quit"

// foot asks, tells, or says which keys there are.
func (m *model) foot() string {
	switch {
	case m.question != nil:
		return m.in(strong, human.Cut(human.Clean(m.question.text), max(m.width, 1)))
	case m.filter.Focused():
		return m.filter.View()
	case m.notice != "":
		return m.in(strong, human.Cut(human.Clean(m.notice), max(m.width, 1)))
	}
	return m.in(weak, shortHelp)
}

// twoColumns is the width from which on there is room for two columns of keys.
const twoColumns = 78

func (m *model) helpLines() []string {
	lines := []string{"", m.in(strong, "Keys")}
	list := keys.listed()
	rows := len(list)
	if m.width >= twoColumns {
		rows = (rows + 1) / 2
	}
	for i := range rows {
		line := ""
		for ; i < len(list); i += rows {
			line += fmt.Sprintf("  %-7s %-29s", list[i].Help().Key, list[i].Help().Desc)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}
