package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/internal/top"
)

const topHelp = `Show uplinks and sessions live: rates, health, who talks to whom, by which uplink
and why. Keys are shown with "?"; q ends it. Where stdout is no terminal, or one that
cannot move its cursor, it is printed once.

Programs are named of sessions of this host, and names of remotes where rules ask
for names.`

func (a *app) topCommand() *cobra.Command {
	o := top.Options{Out: a.Stdout}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show uplinks and sessions live",
		Long:  topHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(top.Sorts, o.Sort) {
				return misuse(c, fmt.Errorf("--sort %q is none of %s", o.Sort, strings.Join(top.Sorts, ", ")))
			}
			o.Client, o.ASCII = a.client(), !a.unicode()
			if !a.Terminal || a.Getenv("TERM") == "dumb" {
				return top.Print(c.Context(), o)
			}
			return top.Run(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.Sort, "sort", api.SortRate, "order of the sessions: "+strings.Join(top.Sorts, ", "))
	c.Flags().StringVar(&o.Match, "filter", "", "only sessions with this text in addresses, uplink, rule, program or name")
	return c
}

// unicode reports whether the locale says that the terminal shows more than ASCII.
func (a *app) unicode() bool {
	locale := strings.ToLower(cmp.Or(a.Getenv("LC_ALL"), a.Getenv("LC_CTYPE"), a.Getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}
