package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) uplinkCommand() *cobra.Command {
	c := &cobra.Command{Use: "uplink", Short: "Enable, disable or prefer one uplink, or say whether it is metered"}
	c.AddCommand(
		a.switchCommand("enable", "Use an uplink again", true),
		a.switchCommand("disable", "Start no new session on an uplink", false),
		a.preferCommand(), a.meteredCommand(),
	)
	return c
}

func (a *app) switchCommand(verb, short string, enabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Long:  short + ".\n\nExit status: 10 when there is no such uplink. Needs root or the group tapgw.",
		Args:  cobra.ExactArgs(1),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.client().SetUplink(c.Context(), args[0], enabled); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Stdout, "uplink %s %sd\n", clean(args[0]), verb)
			return err
		},
	}
}

func (a *app) preferCommand() *cobra.Command {
	var none bool
	c := &cobra.Command{
		Use:   "prefer NAME | --none",
		Short: "Start new sessions on this uplink as long as it is up",
		Long: `Start new sessions on this uplink as long as it is up, whatever tiers and loads
are, but where a rule sends them elsewhere. Sessions that there are stay where
they are. A restart of the daemon forgets it.

Exit status: 10 when there is no such uplink. Needs root or the group tapgw.`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			if none == (len(args) == 1) {
				return misuse(c, errors.New("give the name of an uplink, or --none"))
			}
			name, done := "", "no uplink preferred"
			if !none {
				name, done = args[0], "uplink "+clean(args[0])+" preferred"
			}
			if err := a.client().Prefer(c.Context(), name); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.Stdout, done)
			return err
		},
	}
	c.Flags().BoolVar(&none, "none", false, "prefer no uplink any more")
	return c
}

func (a *app) meteredCommand() *cobra.Command {
	modes := []string{string(api.MeteredOn), string(api.MeteredOff), string(api.MeteredAuto)}
	return &cobra.Command{
		Use:   "metered NAME on|off|auto",
		Short: "Say whether the data of an uplink cost money",
		Long: `Say whether the data of an uplink cost money; auto is what the configuration says.
A metered uplink stands by, in tier 1 or above, and is probed once in half a
minute. One that is not has no data cap. A restart of the daemon forgets it.

Exit status: 10 when there is no such uplink. Needs root or the group tapgw.`,
		Args: cobra.ExactArgs(2),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(modes, args[1]) {
				return misuse(c, fmt.Errorf("%q is none of %s", args[1], strings.Join(modes, ", ")))
			}
			if err := a.client().SetMetered(c.Context(), args[0], api.Metered(args[1])); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Stdout, "uplink %s metered: %s\n", clean(args[0]), args[1])
			return err
		},
	}
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its configuration again; sessions go on",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.client().Reload(c.Context()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.Stdout, "configuration reloaded")
			return err
		},
	}
}
