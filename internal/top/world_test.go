package top

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"go.uber.org/goleak"

	"tapgw/api"
	"tapgw/internal/apiserver"
	"tapgw/internal/apiserver/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDaemon is a daemon in a fixed condition.
type fakeDaemon struct {
	*apiserver.Hub
	apitest.Daemon
}

// uplink has been in its state for three days and four hours.
func uplink(name, state string, down, up float64) api.Uplink {
	return api.Uplink{
		Name: name, Interface: name + "0", State: state, RxBps: down, TxBps: up, Load: down / 100e6, Sessions: 12, RTTMs: 9.2, Loss: 0.005,
		Since: time.Now().Add(-76*time.Hour - 30*time.Minute),
	}
}

func session(proto, inside, remote, uplink string, in float64) api.Session {
	return api.Session{
		Proto: proto, Inside: netip.MustParseAddrPort(inside), Remote: netip.MustParseAddrPort(remote), Uplink: uplink, State: "open",
		AgeS: 75, BytesIn: 4_200_000, InBps: in, OutBps: in / 100, Reason: "chosen by the scheduler",
	}
}

func healthy() *fakeDaemon {
	d := &fakeDaemon{Hub: apiserver.NewHub(), Daemon: apitest.Daemon{
		State: api.Status{Version: "1", UptimeS: 187_200, Sessions: 24, Uplinks: []api.Uplink{
			uplink("fibre", api.StateUp, 61e6, 6.1e6), uplink("wifi", api.StateDown, 0, 0), uplink("a-very-long-name", api.StateDisabled, 22.1e6, 0),
		}},
		Table: []api.Session{
			session("tcp", "192.168.1.20:51812", "198.51.100.80:443", "fibre", 48e6),
			session("udp", "100.64.0.2:5000", "[2001:db8::1]:53", "wifi", 12e3),
			session("gre", "192.168.1.33:0", "198.51.100.1:0", "fibre", 0),
		},
	}}
	d.State.Uplinks[1].Reason = "no reply from 1.1.1.1, 8.8.8.8"
	d.State.Uplinks[2].Preferred, d.State.Uplinks[2].Metered = true, true
	d.Table[0].Domain = "www.example.com"
	d.Table[1].Program, d.Table[1].Rule = "/usr/lib/firefox/firefox", "names"
	return d
}

// view is the model of a terminal that asks the real server over d.
func view(t *testing.T, d *fakeDaemon, o Options) *model {
	t.Helper()
	o.Client = &api.Client{Socket: filepath.Join(t.TempDir(), "s")}
	apitest.Start(t, apiserver.New(d, apiserver.Options{Socket: o.Client.Socket, Logger: slog.New(slog.DiscardHandler)}))
	if o.Sort == "" {
		o.Sort = api.SortRate
	}
	m := newModel(t.Context(), o)
	if err := m.begin(); err != nil {
		t.Fatal(err)
	}
	return m
}

// run has the model take a message, and what comes of it until it waits for time to pass.
func (m *model) run(msg tea.Msg) {
	_, next := m.Update(msg)
	if _, timed := msg.(answer); timed || next == nil {
		return
	}
	switch msg := next().(type) {
	case answer, changed:
		m.run(msg)
	case tea.BatchMsg:
		for _, one := range msg {
			if one != nil {
				m.runAnswer(one())
			}
		}
	}
}

// runAnswer takes the daemon's answers alone, as a cursor that blinks has no end.
func (m *model) runAnswer(msg tea.Msg) {
	if a, ok := msg.(answer); ok {
		m.run(a)
	}
}

// look asks the daemon, and returns the screen of a terminal without its colours.
func (m *model) look(columns, lines int) string {
	m.run(tea.WindowSizeMsg{Width: columns, Height: lines})
	m.run(m.ask()())
	return m.shown()
}

func (m *model) shown() string {
	lines := strings.Split(ansi.Strip(m.View().Content), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// press presses keys, of which letters are themselves.
func (m *model) press(keys ...string) {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "space": tea.KeySpace}
	for _, k := range keys {
		msg := tea.KeyPressMsg{Code: special[k]}
		if msg.Code == 0 {
			msg = tea.KeyPressMsg{Code: rune(k[0]), Text: k}
		}
		m.run(msg)
	}
}
