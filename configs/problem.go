package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing wrong with a configuration, or unwise when it is a warning.
type Problem struct { //nolint:errname // what a user meets is a problem; several of them are one error
	Source string // file name or environment variable
	Line   int    // in the file, 0 when there is none
	Key    string // as probe.targets[1], empty when it is about the whole file
	What   string
	Fix    string
}

// Error is the problem on one line, as "tapgw.yaml:12: nat.ports: what is wrong; what to do".
func (p Problem) Error() string {
	parts := []string{}
	if p.Line > 0 {
		parts = append(parts, fmt.Sprintf("%s:%d", p.Source, p.Line))
	} else if p.Source != "" {
		parts = append(parts, p.Source)
	}
	if p.Key != "" {
		parts = append(parts, p.Key)
	}
	text := strings.Join(append(parts, p.What), ": ")
	if p.Fix != "" {
		text += "; " + p.Fix
	}
	return text
}

// maxProblems bounds how many problems are told: one wrong file must not flood a terminal or a log.
const maxProblems = 40

// Problems is everything wrong with one configuration, in order of lines.
type Problems []Problem //nolint:errname // as Problem

// Error lists the problems, one per line.
func (ps Problems) Error() string {
	lines := []string{}
	for _, p := range ps[:min(len(ps), maxProblems)] {
		lines = append(lines, p.Error())
	}
	if more := len(ps) - maxProblems; more > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// sorted orders problems as people meet them.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key))
	})
	return ps
}

// fault is what parsers and checks return: a Problem that does not know its place yet.
type fault struct{ what, fix string }

func (f *fault) Error() string { return f.what + "; " + f.fix }

func faultf(fix, what string, args ...any) error { return &fault{fmt.Sprintf(what, args...), fix} }

// quote shows a piece of the user's text on one line and not at any length.
func quote(s string) string {
	const limit = 60
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}

// quoteIfOdd quotes a name only when it would not survive on one line.
func quoteIfOdd(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// nearest returns the candidate most like word, or "" when none is.
func nearest(word string, candidates []string) string {
	best, distance := "", 3
	if len(word) <= 3 {
		distance = 2
	}
	if len(word) > 64 {
		return ""
	}
	for _, c := range candidates {
		if d := editDistance(strings.ToLower(word), strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance of two short words, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
