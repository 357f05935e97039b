package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/internal/doctor"
)

const doctorHelp = `Look at this host and its network, and say what keeps tapgw from working well
and what helps. Nothing is changed. It works with and without a running daemon;
what only root may look at is said to be unknown without root.

Exit status: 0 all is well; 1 something could be better; 2 something does not
work, or wrong usage.`

// Exit statuses of doctor.
const (
	exitWarnings = 1
	exitFails    = 2
)

// diagnosis is the answer of `tapgw doctor --json`.
type diagnosis struct {
	Level  doctor.Level     `json:"level"` // the worst of the checks: ok, warn or fail
	Checks []doctor.Finding `json:"checks"`
}

func (a *app) doctorCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps tapgw from working well, and say what helps",
		Long:  doctorHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := a.examine(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = writeJSON(a.Stdout, diagnosis{doctor.Worst(list), list})
			} else {
				err = a.printFindings(list)
			}
			return errors.Join(err, doctorResult(list))
		},
	}, "one JSON document")
}

func (a *app) examine(ctx context.Context) ([]doctor.Finding, error) {
	return a.Examine(ctx, doctor.Options{Client: a.client(), Root: "/", Desktop: a.Getenv("XDG_CURRENT_DESKTOP")}, a.configPath)
}

func doctorResult(list []doctor.Finding) error {
	switch doctor.Worst(list) {
	case doctor.Fail:
		return exitError(exitFails)
	case doctor.Warn:
		return exitError(exitWarnings)
	}
	return nil
}

// checkWidth is that of the columns with level and name, and of the indent below them.
const checkWidth = 24

// printFindings gives the advice a line of its own, however long, so that a command in it can be copied.
func (a *app) printFindings(list []doctor.Finding) error {
	colours := map[doctor.Level]string{doctor.OK: "32", doctor.Warn: "33", doctor.Fail: "31"}
	var b strings.Builder
	count := map[doctor.Level]int{}
	for _, f := range list {
		count[f.Level]++
		level := fmt.Sprintf("%-8s", f.Level)
		if colour := colours[f.Level]; a.colour() && colour != "" {
			level = "\x1b[" + colour + "m" + level + "\x1b[0m"
		}
		text := wrap(clean(f.Message), columns-checkWidth, "")
		fmt.Fprintf(&b, "%s %-14s %s\n", level, clean(f.Check), strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", checkWidth)))
		if f.Advice != "" {
			fmt.Fprintf(&b, "    %s\n", clean(f.Advice))
		}
	}
	fmt.Fprintf(&b, "%d ok, %d to improve, %d failed, %d could not be looked at\n",
		count[doctor.OK], count[doctor.Warn], count[doctor.Fail], count[doctor.Unknown])
	_, err := fmt.Fprint(a.Stdout, b.String())
	return err
}

// examine looks at the host with the names that the configuration gives. One that cannot be used is no reason not to look.
func examine(ctx context.Context, o doctor.Options, configPath string) (list []doctor.Finding, err error) {
	if o.Facts, err = readFacts(); err != nil {
		return nil, err
	}
	config := usableConfig(configPath)
	o.TAP = config.TAP.Name
	for _, u := range config.Uplinks {
		if u.Interface != "" {
			o.Uplinks = append(o.Uplinks, u.Interface)
		}
	}
	return doctor.Examine(ctx, o), nil
}
