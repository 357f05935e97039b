package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/configs"
	"tapgw/internal/daemon"
)

func (a *app) runCommand() *cobra.Command {
	var datapath string
	var wait bool
	modes := datapathModes()
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway in the foreground (needs root)",
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := a.runOptions(c)
			if err != nil {
				return err
			}
			if datapath != "" && !slices.Contains(modes, datapath) {
				return misuse(c, fmt.Errorf("--datapath %q is none of %s", datapath, strings.Join(modes, ", ")))
			}
			o.Datapath, o.Wait = datapath, wait
			return a.Run(c.Context(), o)
		},
	}
	c.Flags().StringVar(&datapath, "datapath", "", strings.Join(modes, ", ")+" (default datapath.mode of the configuration)")
	c.Flags().BoolVar(&wait, "wait", false, "start without an uplink too, and use the first that appears")
	_ = c.RegisterFlagCompletionFunc("datapath", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp)) // fails without the flag only
	return c
}

// datapathModes are what the configuration accepts too.
func datapathModes() (modes []string) {
	for _, m := range configs.DatapathModes() {
		modes = append(modes, string(m))
	}
	return modes
}

func (a *app) runOptions(c *cobra.Command) (RunOptions, error) {
	log, err := a.logger(c)
	return RunOptions{ConfigPath: a.configPath, Socket: a.givenSocket(), Version: a.Version, Logger: log}, err
}

// cleanups is the answer of `tapgw cleanup --json`.
type cleanups struct {
	Cleaned []daemon.Cleaned `json:"cleaned"` // empty when there was nothing
}

func (a *app) cleanupCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "cleanup",
		Short: "Remove what a crashed gateway left behind (needs root)",
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := a.runOptions(c)
			if err != nil {
				return err
			}
			done, err := a.Cleanup(c.Context(), o)
			return errors.Join(err, a.printCleaned(done, err == nil))
		},
	}, "one JSON document")
}

func (a *app) printCleaned(done []daemon.Cleaned, complete bool) error {
	if a.json {
		return writeJSON(a.Stdout, cleanups{append([]daemon.Cleaned{}, done...)})
	}
	for _, d := range done {
		fmt.Fprintln(a.Stdout, clean(d.Action), clean(d.Kind), clean(d.Name))
	}
	if complete && len(done) == 0 {
		fmt.Fprintln(a.Stdout, "nothing to clean")
	}
	return nil
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
