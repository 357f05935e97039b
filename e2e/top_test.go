package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// busy is a world where the LAN downloads all the time by one uplink and this program has a connection by the other.
func busy(t *testing.T) (w world, own talker) {
	t.Helper()
	const rate = 16_000_000
	w = begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{Down: rate, Up: rate}, {Down: rate, Up: rate}}}, inTurn)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = w.lan.BulkDownload(ctx, lab.ServerAddrs[1], 1, 1<<40) // until it is stopped
	}()
	t.Cleanup(func() { stop(); <-ended })
	return w, w.connect(w.Gateway, "wan2")
}

// sorted asks for sessions in an order.
func (w world) sorted(f api.Filter) []api.Session {
	w.t.Helper()
	list, err := w.client.Sessions(labtest.Context(w.t), f)
	labtest.Must(w.t, err)
	return list
}

// TestSessionsSorted: the fastest is first, with its rate; sessions of this host have their program, and are found by it.
func TestSessionsSorted(t *testing.T) {
	t.Parallel()
	w, own := busy(t)
	me, err := os.Executable()
	labtest.Must(t, err)
	eventually(t, "the download's rate", func() bool {
		list := w.sorted(api.Filter{Sort: api.SortRate, Limit: 1})
		return len(list) == 1 && list[0].Remote.Port() == lab.PortBulk && list[0].InBps > 1e6 && list[0].InBps > 5*list[0].OutBps && list[0].Program == ""
	})
	found := w.sorted(api.Filter{Sort: api.SortAge, Match: strings.ToUpper(filepath.Base(me))})
	if len(found) == 0 {
		t.Fatalf("no session is found by its program %s", me)
	}
	youngest, there := found[0], false
	for _, s := range found {
		there = there || s.Inside.Port() == portOf(own)
		if s.Program != me || s.AgeS < youngest.AgeS {
			t.Errorf("found by the program %s: %+v", me, s)
		}
	}
	if !there {
		t.Errorf("not among those of %s: the one from port %d", me, portOf(own))
	}
	for _, order := range []string{api.SortBytes, api.SortRate} {
		if list := w.sorted(api.Filter{Sort: order, Uplink: "wan2", Proto: "tcp"}); len(list) == 0 || list[0].Uplink != "wan2" {
			t.Errorf("by %s on wan2: %+v", order, list)
		}
	}
}

// topView is `tapgw top` of a busy world in a terminal.
type topView struct {
	world
	*terminal
	program       string // this one, which has a session
	before, after string // files with the settings of the terminal
}

func openTop(t *testing.T) topView {
	t.Helper()
	w, _ := busy(t)
	me, err := os.Executable()
	labtest.Must(t, err)
	v := topView{world: w, program: filepath.Base(me), before: filepath.Join(w.dir, "before"), after: filepath.Join(w.dir, "after")}
	script := fmt.Sprintf("echo shell; stty -g >%s; %s top --socket %s; echo ended with $?; stty -g >%s; exec cat", v.before, binary(t), w.socket(), v.after)
	v.terminal = openTerminal(t, w.Gateway, script, "LC_ALL=C.UTF-8")
	return v
}

// TestTop: the view in a real terminal, by its keys.
func TestTop(t *testing.T) {
	t.Parallel()
	v := openTop(t)
	v.await("Internet: online (2 of 2 uplinks usable)", ">1  wan1", " 2  wan2", "Sessions by rate", v.program, "Mb/s", "█")
	for _, step := range []func(*testing.T, topView){topDisables, topFilters, topSorts, topPins, topNarrows, topEnds} {
		step(t, v)
	}
}

func topDisables(t *testing.T, v topView) {
	t.Helper()
	v.press("2")
	v.await(">2  wan2", "  wan2: up for")
	v.press("d")
	v.await("Disable wan2? No new session will use it. (y/n)")
	v.press("n")
	v.await("q quit")
	if s := v.uplink("wan2").State; s != api.StateUp {
		t.Errorf("after no, wan2 is %s", s)
	}
	v.press("d", "y")
	v.awaitState("wan2", api.StateDisabled)
	v.await("wan2 is disabled", "disabled", "Internet: partial (1 of 2 uplinks usable)")
	v.press("d", "y")
	v.awaitState("wan2", api.StateUp, api.StateProbing)
}

func topFilters(t *testing.T, v topView) {
	t.Helper()
	lan := v.Hosts[0].Addr.String()
	v.await(lan, v.program)
	v.press("f", v.program, "Enter")
	v.awaitScreen("only "+v.program, func(s string) bool {
		return strings.Contains(s, fmt.Sprintf("with %q", v.program)) && strings.Count(s, v.program) > 1 && !strings.Contains(s, lan)
	})
	v.press("Escape")
	v.await(lan, v.program)
}

func topSorts(t *testing.T, v topView) {
	t.Helper()
	v.press("s") // with the key before it would be another one
	v.await("Sessions by bytes")
}

func topPins(t *testing.T, v topView) {
	t.Helper()
	host := v.Hosts[0].Addr
	lan := host.String()
	v.press("P")
	v.await("Select a session", "> "+lan)
	v.press("P")
	v.await("Pin " + lan + " to wan2?")
	v.press("a")
	v.await(lan + " uses wan2")
	if list, err := v.client.Pins(t.Context()); err != nil || len(list) != 1 || list[0].Inside != host || list[0].Uplink != "wan2" {
		t.Errorf("pinned: %v, %v", list, err)
	}
	v.press("P")
	v.await("Pin " + lan)
	v.press("u")
	v.await("is not pinned to wan2 any more")
}

func topNarrows(t *testing.T, v topView) {
	t.Helper()
	if screen := v.screen(); !strings.Contains(screen, "LOSS") || !strings.Contains(screen, "WHY") {
		t.Errorf("columns are missing in a wide terminal:\n%s", screen)
	}
	v.must("resize-window", "-x", "60", "-y", "20")
	screen := v.awaitScreen("60 columns", func(s string) bool { return strings.Contains(s, "wan1") && !strings.Contains(s, "LOSS") })
	for line := range strings.Lines(screen) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, " \n")); n > 60 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

// topEnds: and the terminal is as it was.
func topEnds(t *testing.T, v topView) {
	t.Helper()
	v.press("?")
	v.await("disable or enable the uplink")
	v.press("q")
	screen := v.await("shell", "ended with 0")
	if strings.Contains(screen, "wan1") || v.must("display-message", "-p", "#{alternate_on}#{cursor_flag}") != "01\n" {
		t.Errorf("the terminal is not as before:\n%s", screen)
	}
	eventually(t, "the settings of the terminal", func() bool { b, err := os.ReadFile(v.after); return err == nil && len(b) > 0 })
	if was, is := textOf(t, v.before), textOf(t, v.after); was != is {
		t.Errorf("the terminal is set to %s, not to %s", is, was)
	}
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	labtest.Must(t, err)
	return string(text)
}

// TestTopPlain: a terminal without colours and Unicode gets none, and the view outlives the daemon.
func TestTopPlain(t *testing.T) {
	t.Parallel()
	w, _ := busy(t)
	x := openTerminal(t, w.Gateway, binary(t)+" top --socket "+w.socket(), "LC_ALL=C", "NO_COLOR=1")
	x.await("Internet: online", "Mb/s", "#", "chosen by")
	colours := x.must("capture-pane", "-p", "-e")
	if strings.ContainsFunc(colours, func(r rune) bool { return r > '~' }) || regexp.MustCompile(`\x1b\[[\d;]*\b[349][0-8][;m]`).MatchString(colours) {
		t.Errorf("colours, or more than ASCII: %q", colours)
	}
	x.press("space")
	x.await("PAUSED")
	w.stop()
	x.press("space")
	x.await("Not up to date: no daemon answers")
	w.restart()
	x.awaitScreen("the new daemon", func(s string) bool {
		return strings.Contains(s, "Internet: online") && !strings.Contains(s, "Not up to date") && !strings.Contains(s, "PAUSED")
	})
}

// TestTopWithoutTerminal: it is printed once.
func TestTopWithoutTerminal(t *testing.T) {
	t.Parallel()
	w, _ := busy(t)
	out, status := w.tapgw("top")
	if status != 0 || !contains(out, "Internet: online (2 of 2 uplinks usable)\n") || !contains(out, "Sessions by rate\n") ||
		!contains(out, fmt.Sprintf("%s:%d", lab.ServerAddrs[1], lab.PortBulk)) || strings.ContainsFunc(out, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		t.Errorf("status %d:\n%s", status, out)
	}
	w.stop()
	if out, status = w.tapgw("top"); status != 8 || !contains(out, "no daemon answers") {
		t.Errorf("without a daemon: status %d:\n%s", status, out)
	}
}
