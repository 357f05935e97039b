package top

import (
	"slices"
	"strings"
	"unicode/utf8"

	"charm.land/lipgloss/v2"

	"tapgw/internal/human"
)

// column is one of a grid of things.
type column[T any] struct {
	title string
	width int // at least
	right bool
	grow  bool // takes a share of the room that is left
	rank  int  // what has the highest is left out first where there is no room; 0 is never
	text  func(t T, width int) string
	style func(t T) lipgloss.Style // nil for none
}

// grid is columns whose places depend on the width of the terminal alone, so that nothing jumps as figures change.
type grid[T any] []column[T]

// fit leaves out what has no room and gives what is left to the columns that grow.
func (g grid[T]) fit(width int) grid[T] {
	g = slices.Clone(g)
	room := func() int {
		need := len(g) - 1
		for _, c := range g {
			need += c.width
		}
		return width - need
	}
	for room() < 0 {
		last := 0
		for i, c := range g {
			if c.rank > g[last].rank {
				last = i
			}
		}
		if g[last].rank == 0 {
			break
		}
		g = slices.Delete(g, last, last+1)
	}
	for left := room(); left > 0; {
		before := left
		for i := range g {
			if g[i].grow && left > 0 {
				g[i].width++
				left--
			}
		}
		if left == before {
			break
		}
	}
	return g
}

// titles is the line above the others.
func (g grid[T]) titles() string {
	cells := make([]string, len(g))
	for i, c := range g {
		cells[i] = c.place(c.title)
	}
	return strings.Join(cells, " ")
}

// line shows one thing; its text may come from anywhere.
func (g grid[T]) line(t T, plain bool) string {
	cells := make([]string, len(g))
	for i, c := range g {
		cells[i] = c.place(human.Clean(c.text(t, c.width)))
		if c.style != nil && !plain {
			cells[i] = c.style(t).Render(cells[i])
		}
	}
	return strings.Join(cells, " ")
}

// place makes a text as wide as the column.
func (c *column[T]) place(text string) string {
	text = human.Cut(text, c.width)
	pad := strings.Repeat(" ", c.width-utf8.RuneCountInString(text))
	if c.right {
		return pad + text
	}
	return text + pad
}
