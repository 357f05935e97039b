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
	tasks   []task
	rounds  int
	sources []source
	values  map[string][]float64
}

// source is what the flood's source alone reaches.
type source struct {
	family *family
	rate   float64 // Mpkt/s
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

// minus is the summary of what exceeds a value.
func (s summary) minus(v float64) summary {
	return summary{s.median - v, s.least - v, s.most - v, s.count}
}

// figure writes three significant digits, and whole numbers from 100 on.
func figure(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// comparison sets one peer's figure in relation to another's. The bar is that of the peer, or of the limit.
type comparison struct{ peer, to, bar string }

var comparisons = []comparison{
	{nameShortcut, nameKernel, nameShortcut},
	{nameShortcut, nameRedirect, nameRedirect},
	{nameWatched, nameShortcut, nameWatched},
	{namePlain, nameKernelRules, namePlain},
	{nameUserspace, nameKernel, nameUserspace},
}

// reportOrder is that of the peers in the report.
var reportOrder = []string{nameKernel, nameShortcut, nameWatched, nameUserspace, nameKernelRules, namePlain, nameRedirect, nameRouted, nameRoutedRules}

// write prints a block for each line, at most 80 columns wide, and returns how many bars were missed.
func (r *results) write(w io.Writer) (missed int) {
	fmt.Fprintf(w, "Medians (least–most) of %d rounds; memory is measured once. Ratios are of medians.\n", r.rounds)
	for _, t := range r.tasks {
		for _, l := range t.lines {
			missed += r.block(w, l)
		}
	}
	if len(r.sources) > 0 {
		fmt.Fprintln(w)
	}
	for _, s := range r.sources {
		fmt.Fprintf(w, "The source of the UDP packets over %s alone: %s Mpkt/s.\n", s.family.name, figure(s.rate))
	}
	return missed
}

// block prints what the peers have reached.
func (r *results) block(w io.Writer, l line) (missed int) {
	title := fmt.Sprintf("\n%s\n", strings.TrimSuffix(l.label+", "+l.unit, ", "))
	for _, peer := range reportOrder {
		s := r.figures(l, peer)
		if s.count == 0 {
			continue
		}
		fmt.Fprint(w, title)
		title = ""
		first := []any{peer, s}
		for _, c := range r.compare(l, peer) {
			row(w, append(first, c.ratio, c.to, c.verdict)...)
			first = []any{"", ""}
			if c.missed {
				missed++
			}
		}
		if first[0] != "" {
			row(w, append(first, "", "", "")...)
		}
	}
	return missed
}

// figures are a peer's values of a line.
func (r *results) figures(l line, peer string) summary {
	if l.beyond == "" {
		return r.get(l.label, peer)
	}
	s, base := r.get(l.beyond, peer), r.get(l.beyond, nameRouted)
	if peer == nameRouted || base.count == 0 {
		return summary{}
	}
	return s.minus(base.median)
}

// outcome is a comparison as it is printed.
type outcome struct {
	ratio, to, verdict string
	missed             bool
}

// compare judges a peer's figure.
func (r *results) compare(l line, peer string) (all []outcome) {
	s := r.figures(l, peer)
	if b, ok := l.bars[peer]; l.absolute && ok {
		verdict, missed := b.judge(s.median, l.less)
		return []outcome{{verdict: verdict, missed: missed}}
	}
	for _, c := range comparisons {
		b, hasBar := l.bars[c.bar]
		if c.peer != peer || l.absolute || (c.to == nameRedirect && !hasBar) {
			continue
		}
		other := r.figures(l, c.to)
		if other.count == 0 {
			continue
		}
		o := outcome{to: c.to}
		quotient := s.median / other.median
		if other.median <= 0 { // less than nothing was added: only the order tells
			quotient = 1 + s.median - other.median
		} else {
			o.ratio = strconv.FormatFloat(quotient, 'f', 2, 64)
		}
		if hasBar {
			o.verdict, o.missed = b.judge(quotient, l.less)
		}
		all = append(all, o)
	}
	return all
}

// judge says which bar a value reaches.
func (b bar) judge(value float64, less bool) (verdict string, missed bool) {
	sign, reaches := "≥", func(bar float64) bool { return value >= bar }
	if less {
		sign, reaches = "≤", func(bar float64) bool { return value <= bar }
	}
	switch {
	case !reaches(b.required):
		return fmt.Sprintf("MISSED %s%g", sign, b.required), true
	case b.aim != 0 && reaches(b.aim):
		return fmt.Sprintf("%s%g, the aim", sign, b.aim), false
	}
	return fmt.Sprintf("%s%g", sign, b.required), false
}

func row(w io.Writer, cells ...any) {
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-16s %-20s %6s  %-14s %s", cells...), " "))
}
