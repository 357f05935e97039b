package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) probeCommand() *cobra.Command {
	var every time.Duration
	c := a.withJSON(&cobra.Command{
		Use:   "probe [UPLINK]",
		Short: "Ask the targets of the probes now, by all uplinks or one",
		Long: `Ask the targets of the probes now, by all uplinks or one, whatever state they are
in, and show what each answers.

Exit status: 0 some target answers by each uplink; 4 not by each; 5 by none; 10
there is no such uplink. Needs root or the group tapgw.`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("every") && every < time.Second {
				return misuse(c, fmt.Errorf("--every %s is less than a second", every))
			}
			name := append(args, "")[0]
			for {
				list, err := a.probe(c.Context(), name, every > 0)
				if err != nil || every == 0 {
					return cmp.Or(err, probeResult(list))
				}
				select {
				case <-c.Context().Done():
					return nil
				case <-time.After(every):
				}
			}
		},
	}, "a JSON list; with --every one each line")
	c.Flags().DurationVar(&every, "every", 0, "ask again and again, as 5s, until Ctrl-C")
	return c
}

// probe asks once and prints the answers.
func (a *app) probe(ctx context.Context, name string, again bool) ([]api.Probe, error) {
	list, err := a.client().Probe(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case a.json && again:
		return list, writeJSONLine(a.Stdout, list)
	case a.json:
		return list, writeJSON(a.Stdout, list)
	}
	t := table{colour: a.colour(), columns: []column{{title: "UPLINK"}, {title: "TARGET"}, {title: "RTT", right: true, keep: true}, {title: "ANSWER"}}}
	for _, p := range list {
		for _, answer := range p.Answers {
			t.add(cell{text: p.Uplink}, cell{text: answer.Target}, cell{text: rtt(answer.RTTMs)}, answered(answer))
		}
	}
	return list, t.print(a.Stdout)
}

func answered(a api.ProbeAnswer) cell {
	if a.Error == "" {
		return cell{text: "ok", colour: "32"}
	}
	return cell{text: a.Error, colour: "31"}
}

// probeResult is the exit status that says by how many uplinks a target answers.
func probeResult(list []api.Probe) error {
	answering := 0
	for _, p := range list {
		for _, answer := range p.Answers {
			if answer.Error == "" {
				answering++
				break
			}
		}
	}
	switch {
	case answering == 0:
		return exitError(exitNoUplink)
	case answering < len(list):
		return exitError(exitSomeUplinks)
	}
	return nil
}
