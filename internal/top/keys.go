package top

import (
	"context"
	"slices"
	"strconv"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"tapgw/api"
)

// keyMap is what can be pressed.
type keyMap struct{ choose, up, down, table, toggle, prefer, pin, only, filter, clear, sort, pause, pageUp, pageDown, help, suspend, quit key.Binding }

func bind(help, what string, keys ...string) key.Binding {
	return key.NewBinding(key.WithKeys(keys...), key.WithHelp(help, what))
}

var keys = keyMap{
	choose:   bind("1-9", "select an uplink", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
	up:       bind("up", "select what is above", "up", "k"),
	down:     bind("down", "select what is below", "down", "j"),
	table:    bind("tab", "select sessions, or uplinks", "tab"),
	toggle:   bind("d", "disable or enable the uplink", "d"),
	prefer:   bind("p", "prefer the uplink, or not", "p"),
	pin:      bind("P", "pin the client, or unpin it", "P"),
	only:     bind("enter", "only its sessions, or all", "enter"),
	filter:   bind("f", "filter the sessions", "f", "/"),
	clear:    bind("esc", "show all sessions again", "esc"),
	sort:     bind("s", "sort by rate, bytes or age", "s"),
	pause:    bind("space", "pause the screen", "space"),
	pageUp:   bind("pgup", "sessions before", "pgup"),
	pageDown: bind("pgdn", "sessions behind", "pgdown"),
	help:     bind("?", "keys", "?"),
	suspend:  bind("ctrl+z", "back to the shell", "ctrl+z"),
	quit:     bind("q", "quit", "q", "ctrl+c"),
}

// listed are the keys in the order of the help.
func (k *keyMap) listed() []key.Binding {
	return []key.Binding{k.choose, k.up, k.down, k.table, k.toggle, k.prefer, k.pin, k.only, k.filter, k.clear, k.sort, k.pageUp, k.pageDown, k.pause, k.suspend, k.help, k.quit}
}

// key does what a key asks for.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	switch {
	case k.String() == "ctrl+c":
		return tea.Quit
	case m.question != nil:
		return m.reply(k)
	case m.filter.Focused():
		return m.typed(k)
	}
	m.notice = ""
	switch {
	case key.Matches(k, keys.quit):
		return tea.Quit
	case key.Matches(k, keys.suspend):
		return tea.Suspend
	case key.Matches(k, keys.help):
		m.help = !m.help
	case key.Matches(k, keys.pause):
		if m.paused = !m.paused; !m.paused {
			return m.refresh()
		}
	case key.Matches(k, keys.toggle):
		m.askToggle()
	case key.Matches(k, keys.prefer):
		return m.prefer()
	case key.Matches(k, keys.pin):
		m.askPin()
	default:
		return m.browse(k)
	}
	return nil
}

// browse does what a key asks for that changes what is looked at.
func (m *model) browse(k tea.KeyPressMsg) tea.Cmd {
	switch {
	case key.Matches(k, keys.choose):
		n, _ := strconv.Atoi(k.String()) // the binding has digits alone
		return m.choose(n - 1)
	case key.Matches(k, keys.up):
		return m.step(-1)
	case key.Matches(k, keys.down):
		return m.step(1)
	case key.Matches(k, keys.table):
		m.switchTable()
	case key.Matches(k, keys.pageUp):
		m.turn(-m.page())
	case key.Matches(k, keys.pageDown):
		m.turn(m.page())
	case key.Matches(k, keys.filter):
		m.help = false
		return m.filter.Focus()
	case key.Matches(k, keys.only):
		m.only = !m.only
		return m.relist()
	case key.Matches(k, keys.clear):
		m.help, m.only, m.among = false, false, false
		m.filter.Reset()
		return m.relist()
	case key.Matches(k, keys.sort):
		m.Sort = Sorts[(slices.Index(Sorts, m.Sort)+1)%len(Sorts)]
		return m.relist()
	}
	return nil
}

// relist asks for other sessions.
func (m *model) relist() tea.Cmd {
	m.skipped = 0
	return m.refresh()
}

// choose selects an uplink by its place.
func (m *model) choose(at int) tea.Cmd {
	if at < 0 || at >= len(m.status.Uplinks) {
		return nil
	}
	m.selected = m.status.Uplinks[at].Name
	if m.only {
		return m.relist()
	}
	return nil
}

// typed takes a key while the filter is written.
func (m *model) typed(k tea.KeyPressMsg) tea.Cmd {
	switch k.String() {
	case "enter":
		m.filter.Blur()
	case "esc":
		m.filter.Blur()
		m.filter.Reset()
		return m.relist()
	default:
		return m.edit(k)
	}
	return nil
}

// edit lets the filter have a message, as keys and what is pasted.
func (m *model) edit(msg tea.Msg) (next tea.Cmd) {
	before := m.filter.Value()
	if m.filter, next = m.filter.Update(msg); m.filter.Value() == before {
		return next
	}
	return tea.Batch(next, m.relist())
}

// askToggle asks whether the selected uplink is to be switched.
func (m *model) askToggle() {
	at := m.at()
	if at < 0 {
		return
	}
	name, enable := m.selected, m.status.Uplinks[at].State == api.StateDisabled
	text, done := "Disable "+name+"? No new session will use it.", name+" is disabled"
	if enable {
		text, done = "Enable "+name+"?", name+" is enabled"
	}
	m.question = &question{text + " (y/n)", map[string]change{
		"y": saying(done, func(ctx context.Context) error { return m.Client.SetUplink(ctx, name, enable) }),
	}}
}

// prefer has new sessions use the selected uplink while it is up, or has them no longer.
func (m *model) prefer() tea.Cmd {
	at := m.at()
	if at < 0 {
		return nil
	}
	name, done := m.selected, m.selected+" is preferred"
	if m.status.Uplinks[at].Preferred {
		name, done = "", m.selected+" is preferred no longer"
	}
	return m.make(saying(done, func(ctx context.Context) error { return m.Client.Prefer(ctx, name) }))
}

// reply makes the change that was asked about, or leaves it.
func (m *model) reply(k tea.KeyPressMsg) tea.Cmd {
	c := m.question.answers[k.String()]
	m.question = nil
	if c == nil {
		return nil
	}
	return m.make(c)
}

func (m *model) make(c change) tea.Cmd {
	return func() tea.Msg {
		done, err := c(m.ctx)
		return changed{done, err}
	}
}
