package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tapgw/api"
)

const webHelp = `Print the address of the dashboard, the page for a browser on this host. Who may
change things gets one that signs the browser in: it is good for two minutes,
and for one browser. Everybody else may look.

From another machine, first: ssh -L 7380:127.0.0.1:7380 HOST`

func (a *app) webCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "web",
		Short: "Open the dashboard in a browser",
		Long:  webHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			url, err := a.client().SignInURL(c.Context())
			if errors.Is(err, api.ErrDenied) {
				return a.lookOnly(c, err)
			}
			if err == nil {
				_, err = fmt.Fprintf(a.Stdout, "Open this in a browser, within 2 minutes:\n  %s\n", clean(url))
			}
			return err
		},
	}
}

// lookOnly prints where somebody who may not change things can look.
func (a *app) lookOnly(c *cobra.Command, denied error) error {
	url, err := a.client().DashboardURL(c.Context())
	if err != nil || url == "" {
		return errors.Join(denied, err)
	}
	_, err = fmt.Fprintf(a.Stdout, "Open this in a browser:\n  %s\n%s\n", clean(url), wrap("There "+clean(denied.Error())+".", columns, ""))
	return err
}
