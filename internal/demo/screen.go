package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// lineEvery is how often a line is printed where nothing can be redrawn.
const lineEvery = time.Second

// screen shows what happens. What cannot be written is not shown, and the demo goes on: its exit status still tells.
type screen struct {
	out   io.Writer
	style style
	steps int
	began time.Time // of the step
	shown time.Time // when the rows were drawn last
	drawn int       // lines that the next rows replace
}

func (s *screen) print(text string) { _, _ = io.WriteString(s.out, text) }

// step begins the next part of the demo.
func (s *screen) step(what string, now time.Time) {
	s.steps++
	s.began, s.shown, s.drawn = now, now, 0
	s.print(renderStep(s.steps, what, s.style))
}

// result ends the present bars with a line that says what came out.
func (s *screen) result(what string) {
	s.drawn = 0
	s.print(renderResult(what))
}

// rows shows the uplinks: by redrawing, or by a line a second.
func (s *screen) rows(rows []row, now time.Time) {
	if s.style.rich {
		text := renderRows(rows, s.style)
		s.print(strings.ReplaceAll(s.up()+text, "\n", "\x1b[K\n"))
		s.drawn = len(rows)
		return
	}
	if now.Sub(s.shown) >= lineEvery {
		s.shown = s.shown.Add(lineEvery)
		s.print(renderLine(s.shown.Sub(s.began), rows, s.style))
	}
}

// up moves the cursor back to the first of the lines to replace.
func (s *screen) up() string {
	if s.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA", s.drawn)
}
