package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the gateway in the foreground (needs root)",
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := a.runOptions(c)
			if err != nil {
				return err
			}
			return a.Run(c.Context(), o)
		},
	}
}

func (a *app) runOptions(c *cobra.Command) (RunOptions, error) {
	log, err := a.logger(c)
	o := RunOptions{ConfigPath: a.configPath, Socket: a.socket, Version: a.Version, Logger: log}
	if o.Socket == "" {
		o.Socket = a.Getenv(api.SocketEnv)
	}
	return o, err
}

func (a *app) cleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove what a crashed gateway left behind (needs root)",
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := a.runOptions(c)
			if err != nil {
				return err
			}
			removed, err := a.Cleanup(c.Context(), o)
			for _, what := range removed {
				fmt.Fprintln(a.Stdout, "removed", clean(what))
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(a.Stdout, "nothing was left behind")
			}
			return err
		},
	}
}

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show it at work on a small network inside this host (needs root, 30 s)",
		Long: `Show it at work on a small network inside this host: namespaces with a LAN host,
the gateway, two ISPs and servers beyond them. Nothing of this host's own network
is touched, and nothing is left behind.

Exit status: 0 when the gateway did what it should.`,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := a.logger(c)
			if err != nil {
				return err
			}
			return a.Demo(c.Context(), DemoOptions{Out: a.Stdout, Colour: a.colour(), Logger: log})
		},
	}
}
