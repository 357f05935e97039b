package demo

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// style is how much the terminal can do. Colours only repeat what a word says.
type style struct{ rich bool }

// Parameters of the terminal's colours.
const (
	green = "32"
	red   = "31"
	bold  = "1"
)

func (s style) paint(colour, text string) string {
	if !s.rich || colour == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// bar draws a share from 0 to 1.
func (s style) bar(share float64, cells int) string {
	full := int(math.Round(float64(cells) * min(max(share, 0), 1)))
	if s.rich {
		return strings.Repeat("█", full) + strings.Repeat("░", cells-full)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", cells-full) + "]"
}

// row is one uplink at one moment.
type row struct {
	title  string
	share  float64 // 0–1, drawn as a bar
	figure string  // the same in words
	note   string
	cut    bool
}

// renderRows draws a line with a bar for each uplink.
func renderRows(rows []row, s style) string {
	var b strings.Builder
	for _, r := range rows {
		colour := green
		if r.cut {
			colour = red
		}
		fmt.Fprintf(&b, "   %-5s  %s  %12s   %s\n", r.title, s.paint(colour, s.bar(r.share, 30)), r.figure, r.note)
	}
	return b.String()
}

// renderLine puts all uplinks on one line, for terminals where nothing can be redrawn.
func renderLine(elapsed time.Duration, rows []row, s style) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %2.0f s", elapsed.Seconds())
	for _, r := range rows {
		fmt.Fprintf(&b, "   %s %s %s", r.title, s.bar(r.share, 10), r.figure)
	}
	return b.String() + "\n"
}

func renderStep(number int, what string, s style) string {
	return fmt.Sprintf("\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", number, what)))
}

func renderResult(what string) string { return "   => " + what + "\n" }

// renderChecks draws the table at the end.
func renderChecks(list []check, s style) string {
	what, measured := len("WHAT HAPPENED"), len("MEASURED")
	for _, c := range list {
		what, measured = max(what, utf8.RuneCountInString(c.what)), max(measured, utf8.RuneCountInString(c.measured))
	}
	var b strings.Builder
	line := func(c check, mark string) {
		text := fmt.Sprintf("%-*s  %*s  %-15s  ", what, c.what, measured, c.measured, c.bar)
		b.WriteString(strings.TrimRight(text+mark, " ") + "\n")
	}
	b.WriteString("\n")
	line(check{what: "WHAT HAPPENED", measured: "MEASURED", bar: "MUST BE"}, "")
	for _, c := range list {
		line(c, c.mark(s))
	}
	return b.String()
}

func (c check) mark(s style) string {
	switch {
	case c.bar == "":
		return ""
	case c.ok:
		return s.paint(green, "pass")
	}
	return s.paint(red, "FAIL")
}

func title() string {
	return fmt.Sprintf(`A small internet inside this machine, with real packets and the real gateway.
Your own network is not touched.

   LAN host --- tapgw --+-- %s, %2.0f Mbit/s --+-- servers
                        +-- %s, %2.0f Mbit/s --+
`, titles[first], capacities[first]/mega, titles[second], capacities[second]/mega)
}

func closing(missed, all int, took time.Duration) string {
	verdict := "The gateway did what it should."
	if missed > 0 {
		verdict = fmt.Sprintf("The gateway did not do what it should: %d of %d lines failed.", missed, all)
	}
	return fmt.Sprintf("\n%s\nThat took %.0f seconds, and nothing of it is left on this machine.\n", verdict, took.Seconds())
}
