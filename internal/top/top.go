// Package top is the live view of a running gateway in a terminal: uplinks with their rates over time, and the sessions
// that matter most at the moment.
package top

import (
	"context"
	"fmt"
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"

	"tapgw/api"
)

// Options say what to show, and where.
type Options struct {
	Client *api.Client
	Out    io.Writer
	Sort   string // as api.Filter.Sort
	Match  string // as api.Filter.Match
	ASCII  bool   // the terminal shows nothing else
}

// Sorts are the orders of sessions, in that of the key that changes them.
var Sorts = []string{api.SortRate, api.SortBytes, api.SortAge}

// Run shows the view until its user or ctx ends it. It fails at once when no daemon answers.
func Run(ctx context.Context, o Options) error {
	m := newModel(ctx, o)
	if err := m.begin(); err != nil {
		return err
	}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithOutput(o.Out), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		err = nil // it was ended, which the library takes for a failure
	}
	return err
}

// Sizes of what Print writes.
const (
	printedColumns  = 80
	printedSessions = 20
)

// Print writes the view once, as plain text.
func Print(ctx context.Context, o Options) error {
	o.ASCII = true
	m := newModel(ctx, o)
	if err := m.begin(); err != nil {
		return err
	}
	m.width, m.plain = printedColumns, true
	filter := m.wanted()
	filter.Limit = printedSessions
	list, err := o.Client.Sessions(ctx, filter)
	if err != nil {
		return err
	}
	m.sessions = list
	for _, line := range append(append(m.head(), m.uplinkLines()...), m.sessionLines(printedSessions)...) {
		if _, err := fmt.Fprintln(o.Out, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}
