package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// column is one column of a table.
type column struct {
	title string
	right bool // aligned to the right, for numbers
	keep  bool // never shortened
}

// cell is one field; colour is an SGR parameter or "".
type cell struct{ text, colour string }

// table is rows under titles, never wider than the terminal may be.
type table struct {
	columns []column
	rows    [][]cell
	colour  bool
}

const (
	gap      = 2 // between columns
	minWidth = 4 // of a shortened column
)

// add appends a row; its text may come from anywhere.
func (t *table) add(cells ...cell) {
	for i := range cells {
		cells[i].text = clean(cells[i].text)
	}
	t.rows = append(t.rows, cells)
}

// print writes the table.
func (t *table) print(w io.Writer) error {
	widths := t.widths()
	var b strings.Builder
	titles := make([]cell, len(t.columns))
	for i, c := range t.columns {
		titles[i].text = c.title
	}
	t.line(&b, widths, titles)
	for _, row := range t.rows {
		t.line(&b, widths, row)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widths gives every column what it needs and then takes from the widest until all fit.
func (t *table) widths() []int {
	widths := make([]int, len(t.columns))
	total := -gap
	for i, c := range t.columns {
		widths[i] = utf8.RuneCountInString(c.title)
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
		total += widths[i] + gap
	}
	for ; total > columns; total-- {
		widest := -1
		for i, c := range t.columns {
			if !c.keep && widths[i] > minWidth && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

func (t *table) line(b *strings.Builder, widths []int, row []cell) {
	var line strings.Builder
	for i, c := range row {
		text := cut(c.text, widths[i])
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
		if t.colour && c.colour != "" {
			text = "\x1b[" + c.colour + "m" + text + "\x1b[0m"
		}
		if t.columns[i].right {
			line.WriteString(pad + text)
		} else {
			line.WriteString(text + pad)
		}
		line.WriteString(strings.Repeat(" ", gap))
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}
