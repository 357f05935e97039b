package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) uplinkCommand() *cobra.Command {
	c := &cobra.Command{Use: "uplink", Short: "Enable or disable one uplink"}
	c.AddCommand(
		a.switchCommand("enable", "Use an uplink again", true),
		a.switchCommand("disable", "Start no new session on an uplink", false),
	)
	return c
}

func (a *app) switchCommand(verb, short string, enabled bool) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Long:  short + ".\n\nExit status: 10 when there is no such uplink. Needs root or the group tapgw.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.client().SetUplink(c.Context(), args[0], enabled); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Stdout, "uplink %s %sd\n", clean(args[0]), verb)
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
