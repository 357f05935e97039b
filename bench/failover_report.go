package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// failoverResults are all values measured.
type failoverResults struct {
	options failoverOptions
	rows    []*failoverRow
}

// failoverRow is what was measured of a trial in one setting; its fields are those of the JSON report.
type failoverRow struct {
	Name     string  `json:"name"`
	Label    string  `json:"label"`
	Datapath string  `json:"datapath"`
	Sessions int     `json:"sessions"` // live ones beside what was measured
	Unit     string  `json:"unit"`     // "" for a count
	Bar      float64 `json:"bar"`
	Median   float64 `json:"median"` // of the rounds in which it happened
	Worst    float64 `json:"worst"`
	Rounds   int     `json:"rounds"`
	Never    int     `json:"never"`   // rounds in which it did not happen
	Verdict  string  `json:"verdict"` // one of the verdicts

	setting setting
	values  []float64
}

// The verdicts: the worst round met the bar; the median did; neither did.
const (
	verdictMet    = "met"
	verdictMedian = "median met"
	verdictMissed = "MISSED"
)

// add takes one round, in which err says that nothing happened.
func (r *failoverResults) add(t trial, s setting, v float64, err error) {
	var row *failoverRow
	for _, old := range r.rows {
		if old.Name == t.name && old.setting == s {
			row = old
		}
	}
	if row == nil {
		row = &failoverRow{Name: t.name, Label: t.label, Datapath: s.datapath, Sessions: s.crowd, Unit: t.unit, Bar: t.bar, setting: s}
		if t.long() {
			row.Label += fmt.Sprintf(" in %s", strings.TrimSuffix(r.options.long.String(), "0s"))
		}
		r.rows = append(r.rows, row)
	}
	row.Rounds++
	if err != nil {
		row.Never++
		return
	}
	row.values = append(row.values, v)
}

// settle computes median, worst and verdict.
func (row *failoverRow) settle() {
	s := summarise(row.values)
	row.Median, row.Worst = s.median, s.most
	switch {
	case row.Never == 0 && row.Worst <= row.Bar:
		row.Verdict = verdictMet
	case 2*row.Never < row.Rounds && row.Median <= row.Bar && row.Bar > 0:
		row.Verdict = verdictMedian
	default:
		row.Verdict = verdictMissed
	}
}

// write prints the report and returns how many bars were missed by the median.
func (r *failoverResults) write(w io.Writer, machine string) (missed int, err error) {
	for _, row := range r.rows {
		row.settle()
		if row.Verdict == verdictMissed {
			missed++
		}
	}
	if r.options.json {
		text, err := json.MarshalIndent(struct {
			Rows    []*failoverRow `json:"rows"`
			Machine string         `json:"machine"`
		}{r.rows, strings.TrimSpace(machine)}, "", "  ")
		_, writing := fmt.Fprintf(w, "%s\n", text)
		return missed, errors.Join(err, writing)
	}
	fmt.Fprintf(w, "Medians and worst of the rounds. A bar is met when the worst round meets it.\n")
	title := ""
	for _, row := range r.rows {
		if t := row.title(); t != title {
			fmt.Fprintf(w, "\n%s\n", t)
			title = t
		}
		fmt.Fprintln(w, row)
	}
	_, err = fmt.Fprintf(w, "\n%s", machine)
	return missed, err
}

// title is the heading of a row's block, with the bar at the right margin.
func (row *failoverRow) title() string {
	const width = 80
	bar := strings.TrimSpace(fmt.Sprintf("≤ %g %s", row.Bar, row.Unit))
	gap := width - utf8.RuneCountInString(row.Label) - utf8.RuneCountInString(bar)
	return row.Label + strings.Repeat(" ", max(gap, 1)) + bar
}

func (row *failoverRow) String() string {
	values := strings.Repeat(" ", 30)
	if len(row.values) > 0 {
		values = fmt.Sprintf("median %6s   worst %6s  ", row.figure(row.Median), row.figure(row.Worst))
	}
	rounds := fmt.Sprintf("%3d×", row.Rounds)
	verdict := row.Verdict
	if row.Never > 0 {
		verdict += fmt.Sprintf(", %d never", row.Never)
	}
	return strings.TrimRight(fmt.Sprintf("  %-25s %s %s  %s", row.setting, values, rounds, verdict), " ")
}

// figure writes a value; counts are whole.
func (row *failoverRow) figure(v float64) string {
	if row.Unit == "" {
		return fmt.Sprint(math.Round(v))
	}
	return figure(v)
}

// outcomeOf is one round for the progress.
func outcomeOf(t trial, v float64, err error) string {
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(figure(v) + " " + t.unit)
}
