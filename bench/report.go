package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// results are all values measured.
type results struct {
	tasks     []task
	rounds    int
	generator float64 // Mpkt/s of the flood's source alone, 0 if not measured
	values    map[string][]float64
}

func (r *results) add(label, peer string, value float64) {
	if math.IsNaN(value) {
		return
	}
	if r.values == nil {
		r.values = make(map[string][]float64)
	}
	r.values[label+"\x00"+peer] = append(r.values[label+"\x00"+peer], value)
}

func (r *results) get(label, peer string) summary { return summarise(r.values[label+"\x00"+peer]) }

// summary is the median of values and their range.
type summary struct {
	median, least, most float64
	count               int
}

func summarise(values []float64) (s summary) {
	if len(values) == 0 {
		return s
	}
	v := slices.Sorted(slices.Values(values))
	half := len(v) / 2
	s = summary{v[half], v[0], v[len(v)-1], len(v)}
	if len(v)%2 == 0 {
		s.median = (v[half-1] + v[half]) / 2
	}
	return s
}

func (s summary) String() string {
	switch s.count {
	case 0:
		return "–"
	case 1:
		return figure(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", figure(s.median), figure(s.least), figure(s.most))
}

// figure writes three significant digits, and whole numbers from 100 on.
func figure(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// columns add up to 80.
const columns = "%-22s %-6s %-18s %-18s %5s %s"

// write prints the table, at most 80 columns wide, and returns how many bars were missed.
func (r *results) write(w io.Writer) (missed int) {
	fmt.Fprintf(w, "Medians (least–most) of %d rounds; memory is measured once.\n\n", r.rounds)
	row(w, "", "", "tapgw", "kernel", "ratio", "")
	for _, t := range r.tasks {
		for _, l := range t.lines {
			tapgw, kernel := r.get(l.label, "tapgw"), r.get(l.label, "kernel")
			ratio, verdict := "", ""
			if tapgw.count > 0 && kernel.count > 0 {
				quotient := tapgw.median / kernel.median
				ratio, verdict = strconv.FormatFloat(quotient, 'f', 2, 64), l.judge(quotient)
				if l.bar > quotient {
					missed++
				}
			}
			row(w, l.label, l.unit, tapgw, kernel, ratio, verdict)
		}
	}
	if r.generator > 0 {
		fmt.Fprintf(w, "\nThe source of the UDP packets alone: %s Mpkt/s.\n", figure(r.generator))
	}
	return missed
}

func row(w io.Writer, cells ...any) {
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(columns, cells...), " "))
}

// judge compares a ratio with the bar.
func (l line) judge(ratio float64) string {
	switch {
	case l.bar == 0:
		return ""
	case ratio >= l.bar:
		return fmt.Sprintf("≥%g", l.bar)
	}
	return "MISSED"
}
