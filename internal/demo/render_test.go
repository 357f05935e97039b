package demo

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tapgw/internal/golden"
)

// shows compares got with a file, and checks that a terminal of 80 columns shows it unbroken.
func shows(t *testing.T, name, got string) {
	t.Helper()
	expectNarrow(t, got)
	golden.Text(t, filepath.Join("testdata", name), got)
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]*[mAK]")

func expectNarrow(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(escapes.ReplaceAllString(text, "")) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func expectASCII(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (r < ' ' || r > '~') {
			t.Errorf("%q in %q", r, text)
			return
		}
	}
}

var (
	plain = style{}
	rich  = style{rich: true}

	good = figures{
		alone: 28.6 * mega, together: 47.74 * mega, sessions: [count]int{68, 45},
		switched: 1860 * time.Millisecond, failedBefore: 21, after: 114, returned: 540 * time.Millisecond,
	}
	bad = figures{
		alone: 29 * mega, together: 31 * mega, sessions: [count]int{0, 100}, refused: 3,
		switched: never, failedBefore: 160, returned: 10040 * time.Millisecond,
	}
)

func TestChecks(t *testing.T) {
	for name, f := range map[string]figures{"good": good, "bad": bad, "nothing": {}} {
		list := f.checks()
		table := renderChecks(list, plain) + closing(failed(list), len(list), 24*time.Second)
		expectASCII(t, table)
		shows(t, name+".txt", table)
	}
	shows(t, "good-rich.txt", renderChecks(good.checks(), rich))
	shows(t, "bad-rich.txt", renderChecks(bad.checks(), rich))
}

func TestTheBarsAreThoseOfTheContract(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*figures)
		failed int
	}{
		"as it should be":     {func(*figures) {}, 0},
		"gain just enough":    {func(f *figures) { f.together = 1.5 * f.alone }, 0},
		"gain too small":      {func(f *figures) { f.together = 1.499 * f.alone }, 1},
		"nothing alone":       {func(f *figures) { f.alone = 0 }, 1},
		"switch in time":      {func(f *figures) { f.switched = 3 * time.Second }, 0},
		"switch too late":     {func(f *figures) { f.switched = 3*time.Second + 1 }, 1},
		"no switch":           {func(f *figures) { f.switched = never }, 1},
		"many failed before":  {func(f *figures) { f.failedBefore = 100 }, 0},
		"one failed after":    {func(f *figures) { f.failedAfter = 1 }, 1},
		"none looked at":      {func(f *figures) { f.after = 0 }, 1},
		"one download failed": {func(f *figures) { f.refused = 1 }, 1},
		"back in time":        {func(f *figures) { f.returned = 10 * time.Second }, 0},
		"back too late":       {func(f *figures) { f.returned = 10*time.Second + 1 }, 1},
		"never back":          {func(f *figures) { f.returned = never }, 1},
	} {
		f := good
		tc.change(&f)
		if got := failed(f.checks()); got != tc.failed {
			t.Errorf("%s: %d checks failed, want %d", name, got, tc.failed)
		}
	}
}

func someRows() []row {
	return []row{
		{title: "ISP 1", share: 0.953, figure: "28.6 Mbit/s", note: "1038 sessions, cut", cut: true},
		{title: "ISP 2", share: 0.5, figure: "10.0 Mbit/s", note: "21 sessions"},
	}
}

func TestRows(t *testing.T) {
	shows(t, "rows-rich.txt", renderRows(someRows(), rich))
	line := renderLine(12*time.Second, someRows(), plain)
	expectASCII(t, line)
	shows(t, "line.txt", line)
}

func TestBarStaysInItsBounds(t *testing.T) {
	for share, want := range map[float64]string{-1: "[----]", 0: "[----]", 0.5: "[##--]", 1: "[####]", 7: "[####]"} {
		if got := plain.bar(share, 4); got != want {
			t.Errorf("%v: %s", share, got)
		}
	}
}

func TestTitle(t *testing.T) {
	expectASCII(t, title())
	shows(t, "title.txt", title())
}

func TestScreen(t *testing.T) {
	for name, tc := range map[string]struct {
		style
		frames int
	}{"screen.txt": {plain, 23}, "screen-rich.txt": {rich, 3}} {
		var b strings.Builder
		s := &screen{out: &b, style: tc.style}
		now := time.Unix(0, 0)
		s.step("First", now)
		for range tc.frames {
			now = now.Add(redraw)
			s.rows(someRows(), now)
		}
		s.result("so it is")
		s.step("Second", now)
		s.rows(someRows(), now.Add(time.Second))
		if !tc.rich {
			expectASCII(t, b.String())
		}
		shows(t, name, b.String())
	}
}
