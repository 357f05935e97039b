package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapgw/api"
	"tapgw/internal/daemon"
)

func TestUsageIsTwoEverywhere(t *testing.T) {
	for args, want := range map[string]string{
		"":                       "Usage:",
		"uplink":                 "Usage:",
		"config":                 "Usage:",
		"stauts":                 `did you mean "status"?`,
		"uplink enabel lte":      `did you mean "enable"?`,
		"config chek":            `did you mean "check"?`,
		"status extra":           "tapgw status --help",
		"status --jsno":          "tapgw status --help",
		"status --socket":        "needs an argument",
		"uplink enable":          "tapgw uplink enable --help",
		"uplink disable a b":     "tapgw uplink disable --help",
		"uplink prefer":          "the name of an uplink, or --none",
		"uplink prefer a --none": "the name of an uplink, or --none",
		"uplink metered a":       "tapgw uplink metered --help",
		"uplink metered a maybe": `"maybe" is none of on, off, auto`,
		"pause long":             `"long" is no duration up to a day`,
		"pause 25h":              "up to a day",
		"pause -- -5s":           "up to a day",
		"wait --timeout 0s":      "must say something",
		"wait --for=":            "must say something",
		"exec true":              "--via must name an uplink",
		"exec --via lte":         "tapgw exec --help",
		"probe --every 10ms":     "less than a second",
		"probe a b":              "tapgw probe --help",
		"sessions --inside home": "not an address",
		"sessions --limit -1":    "negative",
		"sessions --limit many":  "--limit",
		"run --log-level loud":   "debug, info, warn, error",
		"run --datapath fast":    `"fast" is none of auto, kernel, userspace (see "tapgw run --help")`,
		"run --datapath":         "needs an argument",
		"run now":                "tapgw run --help",
		"help nonsense":          "no help",
		"completion tcsh":        "completion --help",
		"reload --json":          "unknown flag",
		"top --sort colour":      `"colour" is none of rate, bytes, age`,
		"usage --set 3GB":        "--set needs the name of an uplink",
		"usage lte --set much":   `--set: "much" is not an amount of data`,
		"usage a b":              "tapgw usage --help",
	} {
		w := newWorld("/nonexistent/s", strings.Fields(args)...)
		if code := w.run(); code != exitUsage || !strings.Contains(w.err.String(), want) || w.out.Len() > 0 {
			t.Errorf("%q: exit status %d\nstdout: %s\nstderr: %s", args, code, w.out.String(), w.err.String())
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "help", "help uplink enable", "status -h", "completion bash"} {
		w := newWorld("", strings.Fields(args)...)
		if code := w.run(); code != 0 || w.err.Len() > 0 || w.out.Len() == 0 {
			t.Errorf("%q: exit status %d: %s", args, code, w.err.String())
		}
	}
}

func TestNoDaemonIsEight(t *testing.T) {
	for _, args := range []string{
		"status", "status --json", "uplinks", "sessions", "top", "events", "uplink enable x", "reload", "config show --running",
		"uplink prefer --none", "uplink metered x on", "pause", "resume", "exec --via x -- true", "probe", "wait --timeout 50ms",
	} {
		w := newWorld("/nonexistent/s", strings.Fields(args)...)
		if code := w.run(); code != exitNoDaemon || w.out.Len() > 0 {
			t.Errorf("%s: exit status %d", args, code)
		}
		checkErrorLine(t, &w.err, "/nonexistent/s", "tapgw run")
	}
}

// checkErrorLine: an error is one line that says what to do.
func checkErrorLine(t *testing.T, stderr fmt.Stringer, parts ...string) {
	t.Helper()
	text := stderr.String()
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "tapgw: ") {
		t.Errorf("not one line: %q", text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}

func TestSocketFlagBeatsEnvironment(t *testing.T) {
	w := newWorld("/nonexistent/s", "status", "--socket", serve(t, healthy()))
	if code := w.run(); code != 0 {
		t.Errorf("exit status %d: %s", code, w.err.String())
	}
}

// TestSocketOfTheConfiguration: the commands find the daemon where the file put it, unless told otherwise.
func TestSocketOfTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": "api: {socket: /file}\n", "bad": "api: {socket: /file, nonsense: 1}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ flag, env, file, want string }{
		{"", "", "good", "/file"},
		{"", "/env", "good", "/env"},
		{"/flag", "/env", "good", "/flag"},
		{"", "", "bad", api.DefaultSocket},
		{"", "", "missing", api.DefaultSocket},
	} {
		w := newWorld(test.env)
		w.Socket = configuredSocket
		a := &app{Env: w.Env, socket: test.flag, configPath: filepath.Join(dir, test.file)}
		if got := a.client().Socket; got != test.want {
			t.Errorf("%+v: asks %s", test, got)
		}
	}
	w := newWorld("", "status", "--config", filepath.Join(dir, "good"))
	socket := serve(t, healthy())
	w.Socket = func(path string) string { return map[string]string{filepath.Join(dir, "good"): socket}[path] }
	if code := w.run(); code != 0 {
		t.Errorf("exit status %d: %s", code, w.err.String())
	}
}

func TestSwitchingUplinks(t *testing.T) {
	d := healthy()
	socket := serve(t, d)
	for args, want := range map[string]string{
		"uplink disable wifi": "uplink wifi disabled\n",
		"uplink enable fiber": "uplink fiber enabled\n",
	} {
		w := newWorld(socket, strings.Fields(args)...)
		if code := w.run(); code != 0 || w.out.String() != want {
			t.Errorf("%d: %q %s", code, w.out.String(), w.err.String())
		}
	}
	if len(d.Calls()) != 2 {
		t.Error(d.Calls())
	}
	for _, name := range []string{"dsl", "a/b", "\x1b[2J", "%", "?x"} {
		unknownUplink(t, socket, "uplink", "enable", name)
	}
}

// unknownUplink tries a command on an uplink that there is not.
func unknownUplink(t *testing.T, socket string, args ...string) {
	t.Helper()
	w := newWorld(socket, args...)
	if code := w.run(); code != exitUnknownUplink {
		t.Errorf("%q: exit status %d", args, code)
	}
	checkErrorLine(t, &w.err, "no such uplink", "known uplinks: fiber, wifi")
}

func TestSettingUsage(t *testing.T) {
	d := metered()
	socket := serve(t, d)
	w := newWorld(socket, "usage", "lte", "--set", "3.2GB")
	if code := w.run(); code != 0 || !strings.Contains(w.out.String(), "lte") || !slices.Equal(d.Calls(), []string{"usage lte 3200000000"}) {
		t.Errorf("%d: %q %s %v", code, w.out.String(), w.err.String(), d.Calls())
	}
	for _, args := range []string{"usage nobody --set 0B", "usage nobody"} {
		w = newWorld(socket, strings.Fields(args)...)
		if code := w.run(); code != exitUnknownUplink {
			t.Errorf("%s: exit status %d: %s", args, code, w.err.String())
		}
	}
}

func TestReload(t *testing.T) {
	d := healthy()
	socket := serve(t, d)
	if w := newWorld(socket, "reload"); w.run() != 0 || w.out.String() != "configuration reloaded\n" {
		t.Errorf("%q %q", w.out.String(), w.err.String())
	}
	d.Err = fmt.Errorf("%w: line 3: no such key \"uplink\"\nline 4: \x1b[31mred", api.ErrBadConfig)
	w := newWorld(socket, "reload")
	if code := w.run(); code != exitFailure || strings.Contains(w.err.String(), "\x1b") {
		t.Errorf("exit status %d: %q", code, w.err.String())
	}
	for _, part := range []string{"line 3", "\nline 4", "stays in force"} {
		if !strings.Contains(w.err.String(), part) {
			t.Errorf("%q does not say %q", w.err.String(), part)
		}
	}
}

func TestRunPassesOptions(t *testing.T) {
	var got RunOptions
	w := newWorld("/tmp/env.sock", "run", "--config", "/x.yaml", "--log-level", "warn")
	w.Run = func(_ context.Context, o RunOptions) error {
		got = o
		o.Logger.Info("hidden")
		o.Logger.Warn("shown")
		return errors.New("no privilege; use sudo")
	}
	if code := w.run(); code != exitFailure {
		t.Errorf("exit status %d", code)
	}
	if got.ConfigPath != "/x.yaml" || got.Socket != "/tmp/env.sock" || got.Version != "1.2.3" {
		t.Errorf("%+v", got)
	}
	text := w.err.String()
	if strings.Contains(text, "hidden") || !strings.Contains(text, "shown") || !strings.HasSuffix(text, "tapgw: no privilege; use sudo\n") {
		t.Error(text)
	}
	w = newWorld("/tmp/env.sock", "run", "--socket", "/tmp/flag.sock")
	w.Run = func(_ context.Context, o RunOptions) error { got = o; return nil }
	if code := w.run(); code != 0 || got.Socket != "/tmp/flag.sock" {
		t.Errorf("exit status %d, socket %s", code, got.Socket)
	}
}

func TestRunWithDatapath(t *testing.T) {
	for args, want := range map[string]string{
		"run": "", "run --datapath auto": "auto", "run --datapath kernel": "kernel", "run --datapath=userspace": "userspace",
	} {
		w := newWorld("", strings.Fields(args)...)
		got := RunOptions{Datapath: "nothing"}
		w.Run = func(_ context.Context, o RunOptions) error { got = o; return nil }
		if code := w.run(); code != 0 || got.Datapath != want || daemonOptions(got).Datapath != want {
			t.Errorf("%s: exit status %d, datapath %q", args, code, got.Datapath)
		}
	}
}

func TestDatapathIsCompleted(t *testing.T) {
	w := newWorld("", "__complete", "run", "--datapath", "")
	if code := w.run(); code != 0 || !strings.HasPrefix(w.out.String(), "auto\nkernel\nuserspace\n") {
		t.Errorf("%d: %q %q", code, w.out.String(), w.err.String())
	}
}

func TestCleanup(t *testing.T) {
	rule := daemon.Cleaned{Action: "removed", Kind: "rule", Name: "5099 from all to table 254"}
	sysctl := daemon.Cleaned{Action: "restored", Kind: "sysctl", Name: "net/ipv4/conf/wan1/rp_filter to 1"}
	for _, test := range []struct {
		args string
		done []daemon.Cleaned
		err  error
		want string
		code int
	}{
		{"cleanup", nil, nil, "nothing to clean\n", 0},
		{"cleanup", nil, errors.New("no privilege"), "", 1},
		{"cleanup", []daemon.Cleaned{rule, sysctl}, nil,
			"removed rule 5099 from all to table 254\nrestored sysctl net/ipv4/conf/wan1/rp_filter to 1\n", 0},
		{"cleanup", []daemon.Cleaned{rule}, errors.New("no privilege"), "removed rule 5099 from all to table 254\n", 1},
		{"cleanup --json", nil, nil, "{\n  \"cleaned\": []\n}\n", 0},
		{"cleanup --json", []daemon.Cleaned{rule}, nil, `{
  "cleaned": [
    {
      "action": "removed",
      "kind": "rule",
      "name": "5099 from all to table 254"
    }
  ]
}
`, 0},
	} {
		w := newWorld("", strings.Fields(test.args)...)
		w.Cleanup = func(context.Context, RunOptions) ([]daemon.Cleaned, error) { return test.done, test.err }
		if code := w.run(); code != test.code || w.out.String() != test.want {
			t.Errorf("%d: %q", code, w.out.String())
		}
	}
}

func TestDemo(t *testing.T) {
	w := newWorld("", "demo")
	w.Terminal = true
	w.Demo = func(_ context.Context, o DemoOptions) error {
		fmt.Fprintln(o.Out, "colour", o.Colour)
		return errors.New("too slow")
	}
	if code := w.run(); code != exitFailure || w.out.String() != "colour true\n" {
		t.Errorf("%d: %q", code, w.out.String())
	}
	checkErrorLine(t, &w.err, "too slow")
}

func TestHumanUnits(t *testing.T) {
	const hour = time.Hour
	for got, want := range map[string]string{
		duration(-1): "0s", duration(59 * time.Second): "59s", duration(134 * time.Second): "2m14s",
		duration(11 * time.Minute): "11m", duration(9*hour + 59*time.Minute): "9h59m", duration(23 * hour): "23h",
		duration(76 * hour): "3d4h", duration(364 * 24 * hour): "364d", duration(math.MaxInt64): "292y",
		seconds(math.MaxInt64): "292y", seconds(-5): "0s",
		rate(0): "0", rate(0.4): "0", rate(1): "1 b/s", rate(999.4): "999 b/s", rate(999.6): "1.0 kb/s", rate(61e6): "61.0 Mb/s",
		rate(99.96e6): "100 Mb/s", rate(1e300): "999 Eb/s",
		amount(0): "0 B", amount(math.MaxUint64): "18.4 EB", count(99_999): "99999", count(2_000_000): "2.0M",
		rtt(0): "-", rtt(0.04): "0.0ms", rtt(9.2): "9.2ms", rtt(31): "31ms", rtt(12_000): "12s", rtt(1e300): "9999s",
		percent(0): "0%", percent(0.005): "0.5%", percent(1): "100%", percent(1e300): "999%", percent(-1): "0%",
		bar(0): "[------]   0%", bar(0.61): "[####--]  61%", bar(7): "[######] 700%", bar(-1): "[------]   0%",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	if got := wrap("one two three "+strings.Repeat("x", 30), 10, "  "); got != "one two\n  three\n  xxxxxxx~" {
		t.Errorf("%q", got)
	}
	if got := wrap("  ", 10, ""); got != "" {
		t.Errorf("%q", got)
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("x", columns)
	for s, want := range map[string]string{"": "", "a\nb": "a\nb", "a\nb\nc": "a\nb~", "a\n" + long + "\nc": "a\n" + long[1:] + "~"} {
		if got := clip(s, 2); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzClean: nothing unsafe passes, and what is safe passes unchanged.
func FuzzClean(f *testing.F) {
	f.Add("fiber")
	f.Add("B\u00fcro \x1b]0;title\a \u009b2J\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if r < ' ' || r >= 0x7f && r <= 0x9f || r == '\u202e' {
				t.Fatalf("%q became %q", s, clean(s))
			}
		}
		if once := clean(s); clean(once) != once {
			t.Fatalf("%q is cleaned twice", s)
		}
		if short := cut(s, minWidth); utf8.RuneCountInString(short) > minWidth {
			t.Fatalf("%q was cut to %q", s, short)
		}
		for line := range strings.Lines(wrap(s, columns, "  ")) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > columns {
				t.Fatalf("%q has the line %q", s, line)
			}
		}
	})
}
