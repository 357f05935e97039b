package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause [DURATION]",
		Short: "Leave traffic to the host's own routes for a while (default " + duration(api.DefaultPause) + ")",
		Long: `Leave traffic to the host's own routes for a while, as 90s or 2h, at most a day.
It is captured again by itself, or by "tapgw resume".

Connections of this host go on. Those of the LAN are reset, and connect again by
the host's routes. Needs root or the group tapgw.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			length := api.DefaultPause
			if len(args) == 1 {
				var err error
				if length, err = time.ParseDuration(args[0]); err != nil || length <= 0 || length > api.MaxPause {
					return misuse(c, fmt.Errorf("%q is no duration up to a day, as 90s or 2h", args[0]))
				}
			}
			if err := a.client().Pause(c.Context(), length); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Stdout, "paused for %s; before that: tapgw resume\n", duration(length))
			return err
		},
	}
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "End a pause",
		Long:  "End a pause. Needs root or the group tapgw.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.client().Resume(c.Context()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.Stdout, "traffic is captured")
			return err
		},
	}
}

// printCommands says what commands have changed, and how to take that back.
func printCommands(w io.Writer, now time.Time, s api.Status) error {
	var lines []string
	if left := s.PausedUntil.Sub(now); !s.PausedUntil.IsZero() {
		lines = append(lines, "! Paused for "+duration(left)+" more, traffic takes the host's own routes: tapgw resume")
	}
	for _, u := range s.Uplinks {
		if u.Preferred {
			lines = append(lines, "- "+u.Name+": new sessions prefer it: tapgw uplink prefer --none")
		}
		if u.MeteredByCommand {
			not := "not "
			if u.Metered {
				not = ""
			}
			lines = append(lines, "- "+u.Name+": "+not+"metered by command: tapgw uplink metered "+u.Name+" auto")
		}
	}
	if s.Pins > 0 {
		lines = append(lines, "- clients pinned to an uplink ("+count(s.Pins)+"): tapgw pins")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, wrap(clean(line), columns, "  ")); err != nil {
			return err
		}
	}
	return nil
}
