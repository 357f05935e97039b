package top

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/apiserver"
	"tapgw/internal/golden"
	"tapgw/internal/human"
)

func TestScreens(t *testing.T) {
	for _, test := range []struct {
		name           string
		columns, lines int
		options        Options
		keys           []string
	}{
		{"narrow", 60, 20, Options{}, nil},
		{"ascii", 80, 24, Options{ASCII: true}, nil},
		{"by-age", 80, 24, Options{Sort: api.SortAge}, []string{"2"}},
		{"question", 120, 30, Options{}, []string{"3", "d"}},
		{"help", 100, 30, Options{Match: "example"}, []string{"space", "?"}},
	} {
		m := view(t, healthy(), test.options)
		m.look(test.columns, test.lines)
		m.press(test.keys...)
		got := m.look(test.columns, test.lines)
		golden.Text(t, filepath.Join("testdata", test.name), got)
	}
}

// TestScreensFit: no line is too long, and none too many, on any terminal; nothing steers it, whatever the daemon says.
func TestScreensFit(t *testing.T) {
	evil := "\x1b[2Jev\u009b31mil\r\n\t\u202egnol\u200b漢字\u0301\x7f" + strings.Repeat("x", 100)
	d := healthy()
	for _, state := range []string{api.StateUp, evil} {
		d.State.Uplinks = append(d.State.Uplinks, api.Uplink{
			Name: evil, Interface: evil, State: state, Reason: evil, RxBps: 1e300, TxBps: -1, Load: 1e300, Sessions: 1 << 62, RTTMs: 1e300, Loss: -1,
			Usage: api.Usage{UsedBytes: 1<<64 - 1, CapBytes: 1},
		})
	}
	end := netip.MustParseAddrPort("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535")
	d.Table = append(d.Table, slices.Repeat([]api.Session{{
		Proto: evil, Inside: end, Remote: end, Uplink: evil, State: evil, AgeS: 1 << 62, BytesIn: 1 << 63, InBps: 1e300, OutBps: -1,
		Program: "/" + evil, Domain: evil, Rule: evil, Reason: evil,
	}, {}}, 50)...)
	m := view(t, d, Options{})
	m.look(80, 24)
	for _, keys := range []string{"", "5", "d", "nPP", "n?", "?f"} {
		for i := range keys {
			m.press(keys[i : i+1])
		}
		for columns := 1; columns < 150; columns += 3 {
			for _, lines := range []int{1, 2, 7, 24, 60} {
				m.width, m.height = columns, lines
				got := m.shown()
				if n := strings.Count(got, "\n"); n > lines {
					t.Fatalf("%d lines of %d:\n%s", n, lines, got)
				}
				for line := range strings.Lines(got) {
					if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > columns || human.Clean(line) != line {
						t.Fatalf("%d columns: %q", columns, line)
					}
				}
			}
		}
	}
}

func TestNothingToShow(t *testing.T) {
	m := view(t, &fakeDaemon{Hub: apiserver.NewHub()}, Options{})
	if got := m.look(80, 24); !strings.Contains(got, "Internet: offline") || !strings.Contains(got, "No uplink found") {
		t.Error(got)
	}
	m.press("d", "1", "down", "enter", "pgdown")
	m.look(80, 24)
}

// TestChanges: an uplink is switched after a yes alone, and refusals are shown.
func TestChanges(t *testing.T) {
	d := healthy()
	m := view(t, d, Options{})
	m.look(80, 24)
	m.press("d", "n", "d", "q", "d", "y", "3", "d")
	if got := m.shown(); !strings.Contains(got, "Enable a-very-long-name?") {
		t.Error(got)
	}
	m.press("y")
	if got := fmt.Sprint(d.Calls()); got != "[set fibre false set a-very-long-name true]" {
		t.Error(got)
	}
	if got := m.shown(); !strings.Contains(got, "a-very-long-name is enabled") {
		t.Error(got)
	}
	m.press("p", "2", "p")
	if got := fmt.Sprint(d.Calls()[2:]); got != `[prefer "" prefer "wifi"]` || !strings.Contains(m.shown(), "wifi is preferred") {
		t.Error(got)
	}
	d.Err = api.ErrDenied
	m.press("d", "y")
	if got := m.shown(); !strings.Contains(got, "permission denied") {
		t.Error(got)
	}
}

// TestWhichSessions: the keys that choose them.
func TestWhichSessions(t *testing.T) {
	d := healthy()
	m := view(t, d, Options{})
	m.look(100, 24)
	shows := func(yes, no string) {
		t.Helper()
		got := m.shown()
		if !strings.Contains(got, yes) || no != "" && strings.Contains(got, no) {
			t.Errorf("%q is missing or %q is there:\n%s", yes, no, got)
		}
	}
	shows("firefox", "PAUSED")
	m.press("enter")
	shows("Sessions by rate, of fibre", "firefox")
	m.press("down")
	shows("firefox", "192.168.1.20")
	m.press("up", "up", "esc", "f", "x", "a", "m")
	shows("www.example.com:443", "firefox")
	m.press("q", "esc")
	shows("firefox", "filter:")
	m.press("f", "w", "i", "f", "i", "enter", "s", "s", "s", "s")
	shows(`Sessions by bytes, with "wifi"`, "192.168.1.20")
	m.press("esc")
	d.Table = slices.Repeat(d.Table[:1], 300)
	m.look(100, 24)
	shows("the first 200", "")
	for range 50 {
		m.press("pgdown")
	}
	shows("192.168.1.20", "")
	if m.skipped < 200-m.page() || m.skipped >= 200 {
		t.Errorf("the last page begins after %d sessions", m.skipped)
	}
	for range 50 {
		m.press("pgup")
	}
	if m.skipped != 0 {
		t.Errorf("the first page begins after %d sessions", m.skipped)
	}
}

// TestLostDaemon: what was known stays on the screen, with why it is old.
func TestLostDaemon(t *testing.T) {
	m := view(t, healthy(), Options{})
	m.look(80, 24)
	there := m.Client.Socket
	m.Client.Socket = "/nonexistent/s"
	if got := m.look(120, 24); !strings.Contains(got, "Not up to date: no daemon answers") || !strings.Contains(got, "firefox") {
		t.Error(got)
	}
	m.Client.Socket = there
	if got := m.look(120, 24); strings.Contains(got, "Not up to date") {
		t.Error(got)
	}
}

// TestPaused: nothing is asked while paused, and one timer alone counts.
func TestPaused(t *testing.T) {
	m := view(t, healthy(), Options{})
	m.look(80, 24)
	old := due(m.timer)
	m.press("space")
	if _, next := m.Update(due(m.timer)); next != nil || !strings.Contains(m.shown(), "PAUSED") {
		t.Error("asks while paused")
	}
	m.press("space")
	if _, next := m.Update(old); next != nil {
		t.Error("an old timer counts")
	}
	if _, next := m.Update(due(m.timer)); next == nil {
		t.Error("does not go on")
	}
}

// TestOneQuestionAtATime: keys during an answer have one more asked, whose filter is the latest.
func TestOneQuestionAtATime(t *testing.T) {
	m := view(t, healthy(), Options{})
	m.look(80, 24)
	under := m.ask()
	for _, k := range []string{"s", "s"} {
		m.press(k)
	}
	_, next := m.Update(under())
	if next == nil || !m.asking {
		t.Fatal("the latest wish was forgotten")
	}
	if _, ok := next().(answer); !ok || m.wanted().Sort != api.SortAge {
		t.Errorf("sorted by %s", m.wanted().Sort)
	}
}

func TestGraph(t *testing.T) {
	for _, test := range []struct {
		rates []float64
		want  string
	}{
		{nil, "    "},
		{[]float64{0, 1e9}, "  ▁█"},
		{[]float64{9e9, 1e6, 5e5, 0, 2e6}, "▅▃▁█"},
		{[]float64{1000, 0}, "  ▁▁"}, // next to nothing
		{[]float64{-1, 1e300}, "  ▁█"},
	} {
		if got := graph(test.rates, 4, blocks); got != test.want {
			t.Errorf("%v: %q, want %q", test.rates, got, test.want)
		}
	}
	var p *past
	for range 3 * maxPast {
		p = p.with(1, 2)
	}
	if len(p.down) != maxPast || len(p.up) != maxPast {
		t.Errorf("%d and %d rates are remembered", len(p.down), len(p.up))
	}
}
