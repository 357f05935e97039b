package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/golden"
	"tapgw/uplinks"
)

// readings are the commands that only read, each against a daemon in the state that its golden file is named after.
var readings = []struct {
	name   string
	daemon *fakeDaemon
	args   string
	code   int
}{
	{"status", healthy(), "status", 0},
	{"status.json", healthy(), "status --json", 0},
	{"status-guarded", guarded(), "status", 0},
	{"status-guarded-ipv6", guardedV6(), "status", 0},
	{"status-guarded.json", guarded(), "status --json", 0},
	{"status-bypassed", bypassed(), "status", 0},
	{"status-bypassed.json", bypassed(), "status --json", 0},
	{"status-bypassed-userspace", bypassedInUserspace(), "status", 0},
	{"status-slow", slow(), "status", 0},
	{"status-partial", partial(), "status", 4},
	{"status-partial.json", partial(), "status --json", 4},
	{"status-suspect", suspected(), "status", 0},
	{"status-suspect.json", suspected(), "status --json", 0},
	{"status-portals", behindPortals(), "status", 4},
	{"status-offline", offline(), "status", 5},
	{"status-lacking", lacking(), "status", 5},
	{"status-none", &fakeDaemon{}, "status", 5},
	{"status-none.json", &fakeDaemon{}, "status --json", 5},
	{"status-ipv6-only", ipv6Only(), "status", 0},
	{"status-hostile", hostile(), "status", 4},
	{"uplinks", partial(), "uplinks", 0},
	{"uplinks.json", partial(), "uplinks --json", 0},
	{"uplinks-none.json", &fakeDaemon{}, "uplinks --json", 0},
	{"uplinks-hostile", hostile(), "uplinks", 0},
	{"sessions", healthy(), "sessions", 0},
	{"sessions.json", healthy(), "sessions --json", 0},
	{"sessions-udp", healthy(), "sessions --proto udp --inside 192.168.1.20 --uplink wifi --limit 5", 0},
	{"sessions-why", healthy(), "sessions --why", 0},
	{"sessions-none", &fakeDaemon{}, "sessions", 0},
	{"sessions-none.json", &fakeDaemon{}, "sessions --json", 0},
	{"sessions-hostile", hostile(), "sessions", 0},
	{"top", healthy(), "top", 0},
	{"top-filter", healthy(), "top --sort age --filter names", 0},
	{"top-hostile", hostile(), "top", 0},
	{"top-none", &fakeDaemon{}, "top", 0},
	{"pins", pinnedTwice(), "pins", 0},
	{"pins.json", pinnedTwice(), "pins --json", 0},
	{"pins-none", &fakeDaemon{}, "pins", 0},
	{"pins-none.json", &fakeDaemon{}, "pins --json", 0},
	{"pins-hostile", hostile(), "pins", 0},
	{"usage", metered(), "usage", 0},
	{"usage.json", metered(), "usage --json", 0},
	{"usage-one", metered(), "usage lte", 0},
	{"usage-hostile", hostile(), "usage", 0},
	{"usage-none.json", &fakeDaemon{}, "usage --json", 0},
	{"status-metered", metered(), "status", 4},
	{"config-running", healthy(), "config show --running", 0},
	{"status-commanded", commanded(), "status", 0},
	{"status-commanded.json", commanded(), "status --json", 0},
	{"probe", probed(), "probe", 4},
	{"probe.json", probed(), "probe --json", 4},
	{"probe-one", probed(), "probe fiber", 0},
	{"probe-none.json", &fakeDaemon{}, "probe --json", 5},
}

func TestReadingCommands(t *testing.T) {
	for _, test := range readings {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(serve(t, test.daemon), strings.Fields(test.args)...)
			if code := w.run(); code != test.code || w.err.Len() > 0 {
				t.Errorf("exit status %d, want %d; stderr: %s", code, test.code, w.err.String())
			}
			got := w.out.String()
			golden.Text(t, filepath.Join("testdata", test.name), got)
			if strings.Contains(test.args, "--json") {
				checkJSON(t, got)
			} else {
				checkPlain(t, got)
			}
		})
	}
}

func offline() *fakeDaemon {
	d := partial()
	d.State.Uplinks = d.State.Uplinks[2:3]
	return d
}

// lacking has uplinks that this host itself keeps from working.
func lacking() *fakeDaemon {
	d := offline()
	down := d.State.Uplinks[0]
	d.State.Uplinks = nil
	for _, reason := range []string{uplinks.LacksInterface, uplinks.LacksDevice, uplinks.LacksPower, "no carrier", uplinks.LacksAddress, uplinks.LacksGateway} {
		down.Reason = reason
		d.State.Uplinks = append(d.State.Uplinks, down)
	}
	return d
}

// checkPlain: at most 80 columns, and nothing that steers a terminal.
func checkPlain(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > columns {
			t.Errorf("%d columns: %s", n, line)
		}
		if clean(line) != line {
			t.Errorf("unsafe: %q", line)
		}
	}
}

func checkJSON(t *testing.T, text string) {
	t.Helper()
	if !json.Valid([]byte(text)) || strings.Contains(text, "null") {
		t.Errorf("wrong JSON:\n%s", text)
	}
	for _, r := range text {
		if r != '\n' && (r < ' ' || r > '~') {
			t.Errorf("unsafe: %q", r)
		}
	}
}

func TestHostileJSONIsSafeAndComplete(t *testing.T) {
	d := hostile()
	for _, args := range []string{"status --json", "uplinks --json", "sessions --json", "usage --json", "version --json"} {
		w := newWorld(serve(t, d), strings.Fields(args)...)
		w.run()
		checkJSON(t, w.out.String())
	}
	w := newWorld(serve(t, d), "status", "--json")
	w.run()
	var s api.Status
	if err := json.Unmarshal(w.out.Bytes(), &s); err != nil || s.Uplinks[0].Reason != d.State.Uplinks[0].Reason {
		t.Errorf("%v: text was changed by escaping: %q", err, s.Uplinks[0].Reason)
	}
}

func TestStatusIsShort(t *testing.T) {
	broken := guarded()
	broken.State.Uplinks = partial().State.Uplinks[2:4]
	for name, d := range map[string]*fakeDaemon{"all well": healthy(), "no kernel datapath": slow(), "no uplink well, no shortcut": broken} {
		w := newWorld(serve(t, d), "status")
		w.run()
		if n := strings.Count(w.out.String(), "\n"); n > 10 {
			t.Errorf("%s: %d lines", name, n)
		}
	}
}

func TestColourOnlyRepeatsWords(t *testing.T) {
	socket := serve(t, partial())
	plain := newWorld(socket, "status")
	plain.run()
	for _, test := range []struct {
		vars   map[string]string
		colour bool
	}{
		{nil, true},
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"NO_COLOR": "1"}, false},
		{map[string]string{"TERM": "dumb"}, false},
	} {
		w := newWorld(socket, "status")
		w.Terminal = true
		for k, v := range test.vars {
			w.vars[k] = v
		}
		w.run()
		got := w.out.String()
		if strings.Contains(got, "\x1b[") != test.colour {
			t.Errorf("%v:\n%q", test.vars, got)
		}
		for _, code := range []string{"0", "31", "32", "33"} {
			got = strings.ReplaceAll(got, "\x1b["+code+"m", "")
		}
		if got != plain.out.String() {
			t.Errorf("%v: colour changes the text:\n%s", test.vars, got)
		}
	}
}

func TestVersion(t *testing.T) {
	socket := serve(t, healthy())
	platform := fmt.Sprintf("(%s %s/%s)", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, test := range []struct{ socket, flag, want string }{
		{socket, "", "tapgw 1.2.3 " + platform + "\ndaemon: 1.2.3\n"},
		{"/nonexistent/s", "", "tapgw 1.2.3 " + platform + "\ndaemon: not running\n"},
		{socket, "--json", "{\n  \"version\": \"1.2.3\",\n  \"go\": \"" + runtime.Version() + "\",\n  \"daemon\": \"1.2.3\"\n}\n"},
	} {
		w := newWorld(test.socket, strings.Fields("version "+test.flag)...)
		if code := w.run(); code != 0 || w.out.String() != test.want {
			t.Errorf("%d: %q", code, w.out.String())
		}
	}
}

// follower is a stdout that stops the command after so many lines.
type follower struct {
	strings.Builder
	lines  int
	onLine func(n int)
}

func (f *follower) Write(p []byte) (int, error) {
	n, err := f.Builder.Write(p)
	f.lines++
	f.onLine(f.lines)
	return n, err
}

// follow runs `events` until it has printed one event after the snapshot, as Ctrl-C does.
func follow(t *testing.T, d *fakeDaemon, e api.Event, args ...string) (string, int) {
	t.Helper()
	w := newWorld(serve(t, d), append([]string{"events"}, args...)...)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &follower{onLine: func(n int) {
		switch n {
		case len(d.State.Uplinks):
			d.Publish(e)
		case len(d.State.Uplinks) + 1:
			cancel()
		}
	}}
	w.Stdout = out
	code := execute(ctx, w.Env)
	if w.err.Len() > 0 {
		t.Error(w.err.String())
	}
	return out.String(), code
}

// eventID differs in each run.
var eventID = regexp.MustCompile(`"id":\d{16}\b`)

func TestEventsUntilInterrupted(t *testing.T) {
	for name, e := range map[string]api.Event{
		"state":  {Time: noon, Kind: api.EventState, Uplink: "wifi", From: "up", To: "down", Message: "no reply from 1.1.1.1, 8.8.8.8"},
		"other":  {Time: noon, Kind: api.EventAddresses, Uplink: "wifi", From: "up", To: "up", Message: "192.168.8.99"},
		"global": {Time: noon, Kind: api.EventReload},
		"evil":   {Time: noon, Kind: "\x1b[2J", Uplink: "\n", Message: strings.Repeat("long\u009b ", 40)},
	} {
		text, code := follow(t, healthy(), e)
		_, after, _ := strings.Cut(text, "wifi is up\n")
		golden.Text(t, "testdata/event-"+name, after)
		checkPlain(t, text)
		if code != 0 {
			t.Errorf("%s: exit status %d", name, code)
		}
		text, code = follow(t, healthy(), e, "--json")
		lines := strings.Split(strings.TrimSpace(text), "\n")
		golden.Text(t, "testdata/event-"+name+".json", eventID.ReplaceAllString(lines[len(lines)-1], `"id":1`)+"\n")
		for _, line := range lines {
			checkJSON(t, line)
		}
		if code != 0 || len(lines) != 3 {
			t.Errorf("%s: exit status %d, %d lines", name, code, len(lines))
		}
	}
}

func TestEventsWhenStdoutIsGone(t *testing.T) {
	w := newWorld(serve(t, healthy()), "events")
	w.Stdout = brokenPipe{}
	if code := w.run(); code != exitFailure || !strings.Contains(w.err.String(), "closed pipe") {
		t.Errorf("%d: %s", code, w.err.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPrintingErrorsAreNotSwallowed(t *testing.T) {
	socket := serve(t, partial())
	for _, args := range []string{"status", "status --json", "uplinks", "sessions", "version", "config show --running", "reload"} {
		w := newWorld(socket, strings.Fields(args)...)
		w.Stdout = brokenPipe{}
		if code := w.run(); code != exitFailure {
			t.Errorf("%s: exit status %d", args, code)
		}
	}
}

func TestCodes(t *testing.T) {
	for err, want := range map[error]int{
		nil: 0, errors.New("x"): 1, usageError{errors.New("x")}: 2, api.ErrNoDaemon: 8, api.ErrUnknownUplink: 10, api.ErrDenied: 1,
	} {
		if got := codeOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
