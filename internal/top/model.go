package top

import (
	"context"
	"slices"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"tapgw/api"
)

const (
	// pace is how often the daemon is asked; each costly more sessions, which it has to go through, add as much.
	pace   = time.Second
	costly = 100_000

	maxListed = 200 // sessions that are asked for
	maxMatch  = 64  // letters of a filter
)

// model is what is on the screen, and what it is made of.
type model struct {
	Options
	ctx           context.Context
	width, height int
	plain         bool // no colours

	status   api.Status
	sessions []api.Session
	past     map[string]*past // rates of uplinks, by name
	lost     error            // why the daemon does not answer

	selected string // name of an uplink
	only     bool   // its sessions alone
	skipped  int    // sessions above the first that is shown
	among    bool   // a session is selected too, and up and down select others
	session  ends   // which one
	row      int    // where it was in the list
	filter   textinput.Model
	paused   bool
	help     bool
	question *question
	notice   string // what came of the latest change

	asking bool // an answer is under way
	again  bool // and will be out of date when it comes
	timer  int  // number of the one that counts
}

// question waits for a key.
type question struct {
	text    string
	answers map[string]change // by the key; any other changes nothing
}

// change asks something of the daemon, and returns what to say when it is done.
type change func(context.Context) (done string, err error)

func saying(done string, do func(context.Context) error) change {
	return func(ctx context.Context) (string, error) { return done, do(ctx) }
}

// Messages of the program to itself.
type (
	due    int // the number of a timer
	answer struct {
		status   api.Status
		sessions []api.Session
		err      error
	}
	changed struct {
		notice string
		err    error
	}
)

func newModel(ctx context.Context, o Options) *model {
	m := &model{Options: o, ctx: ctx, past: make(map[string]*past), filter: textinput.New()}
	m.filter.Prompt, m.filter.CharLimit = "filter: ", maxMatch
	m.filter.KeyMap.Paste.SetEnabled(false) // it would start a program; terminals paste by themselves
	style := m.filter.Styles()
	style.Cursor.Blink = false
	m.filter.SetStyles(style)
	m.filter.SetValue(o.Match)
	return m
}

// begin asks for the uplinks, which takes no time, so that there is something to see while rates are measured.
func (m *model) begin() error {
	s, err := m.Client.Status(m.ctx)
	if err == nil {
		m.take(answer{status: s})
	}
	return err
}

// Init begins asking.
func (m *model) Init() tea.Cmd { return m.ask() }

// Update takes one message.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case answer:
		return m, m.answered(msg)
	case due:
		if int(msg) == m.timer && !m.paused && !m.asking {
			return m, m.ask()
		}
	case changed:
		m.notice = msg.notice
		if msg.err != nil {
			m.notice = msg.err.Error()
		}
		return m, m.refresh()
	case tea.KeyPressMsg:
		return m, m.key(msg)
	default:
		return m, m.edit(msg)
	}
	return m, nil
}

// wanted is which sessions are shown.
func (m *model) wanted() api.Filter {
	f := api.Filter{Sort: m.Sort, Match: m.filter.Value(), Limit: maxListed}
	if m.only {
		f.Uplink = m.selected
	}
	return f
}

// ask asks the daemon for what is shown.
func (m *model) ask() tea.Cmd {
	m.asking, m.again = true, false
	filter := m.wanted()
	return func() (msg tea.Msg) {
		var a answer
		if a.status, a.err = m.Client.Status(m.ctx); a.err == nil {
			a.sessions, a.err = m.Client.Sessions(m.ctx, filter)
		}
		return a
	}
}

// refresh asks at once, or as soon as the answer under way has come.
func (m *model) refresh() tea.Cmd {
	if m.asking {
		m.again = true
		return nil
	}
	return m.ask()
}

// answered shows an answer, and has the next question follow.
func (m *model) answered(a answer) tea.Cmd {
	m.asking = false
	m.lost = a.err
	if a.err == nil {
		m.take(a)
	}
	if m.again {
		return m.ask()
	}
	m.timer++
	number := due(m.timer)
	return tea.Tick(pace*time.Duration(1+m.status.Sessions/costly), func(time.Time) tea.Msg { return number })
}

// take makes an answer what is shown.
func (m *model) take(a answer) {
	m.status, m.sessions = a.status, a.sessions
	past := make(map[string]*past)
	for _, u := range m.status.Uplinks {
		past[u.Name] = m.past[u.Name].with(u.RxBps, u.TxBps)
	}
	m.past = past
	if m.at() < 0 && len(m.status.Uplinks) > 0 {
		m.selected, m.only = m.status.Uplinks[0].Name, false
	}
	m.skipped = min(m.skipped, max(0, len(m.sessions)-1))
	m.keepSession()
}

// at is where the selected uplink is in the list, -1 for nowhere.
func (m *model) at() int {
	return slices.IndexFunc(m.status.Uplinks, func(u api.Uplink) bool { return u.Name == m.selected })
}
