package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/configs"
)

const longHelp = `tapgw uses all ways to the Internet that this host has, every new session on the
one that is least loaded now, and none that is broken.

Exit status: 0 done; 1 it failed; 2 wrong usage; 8 no daemon runs; 10 no such
uplink. For "tapgw status": 0 all uplinks are usable; 4 some; 5 none. For "tapgw
wait": 3 not in time. For "tapgw doctor": 0 all is well; 1 something could be
better; 2 something does not work. "tapgw exec" gives that of the command, 126
when it cannot be run, 127 when there is none.`

// app is one invocation: the world and the flags that all commands share.
type app struct {
	*Env
	socket     string
	configPath string
	logLevel   string
	json       bool
}

func newRoot(e *Env) *cobra.Command {
	a := &app{Env: e}
	root := &cobra.Command{
		Use:           "tapgw",
		Short:         "Use all ways to the Internet at once",
		Long:          longHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&a.socket, "socket", "", "control socket (default "+api.DefaultSocket+"; also "+api.SocketEnv+" and api.socket)")
	flags.StringVar(&a.configPath, "config", "", "configuration file (default "+configs.DefaultPath+")")
	flags.StringVar(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	root.AddCommand(
		a.statusCommand(), a.uplinksCommand(), a.sessionsCommand(), a.whyCommand(), a.usageCommand(), a.eventsCommand(), a.topCommand(),
		a.uplinkCommand(), a.pinCommand(), a.unpinCommand(), a.pinsCommand(), a.portalCommand(), a.webCommand(), a.reloadCommand(), a.configCommand(),
		a.pauseCommand(), a.resumeCommand(), a.waitCommand(), a.execCommand(), a.probeCommand(),
		a.runCommand(), a.cleanupCommand(), a.demoCommand(), a.versionCommand(),
		a.doctorCommand(), a.reportCommand(), a.captureCommand(), a.manCommand(),
	)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(e.Args...)
	keepShells(root)
	a.complete(root)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return misuse(c, err) })
	tidy(root)
	return root
}

// tidy makes every wrong usage an error with exit status 2; cobra itself shows the help and exits with 0 or 1.
func tidy(c *cobra.Command) {
	if c.Run == nil && c.RunE == nil {
		c.Args, c.RunE = cobra.ArbitraryArgs, needCommand
	}
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	if !c.DisableFlagParsing {
		c.Args = func(c *cobra.Command, args []string) error { return misuse(c, check(c, args)) }
	}
	for _, child := range c.Commands() {
		tidy(child)
	}
}

func needCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		c.SetOut(c.ErrOrStderr())
		return errors.Join(c.Help(), exitError(exitUsage))
	}
	c.SuggestionsMinimumDistance = 2
	err := fmt.Errorf("unknown command %q", args[0])
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w, did you mean %q?", err, near[0])
	}
	return misuse(c, err)
}

func misuse(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return usageError{fmt.Errorf("%w (see \"%s --help\")", err, c.CommandPath())}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			topic, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return misuse(c.Root(), fmt.Errorf("no help about %q", strings.Join(args, " ")))
			}
			return topic.Help()
		},
	}
}

// client talks to the daemon that `tapgw run` with the same flags and environment would be.
func (a *app) client() *api.Client {
	return &api.Client{Socket: cmp.Or(a.givenSocket(), a.Socket(a.configPath), api.DefaultSocket)}
}

// givenSocket is the one of the command line or the environment, "" for none.
func (a *app) givenSocket() string { return cmp.Or(a.socket, a.Getenv(api.SocketEnv)) }

// colour reports whether stdout takes colours; they only ever repeat what a word says.
func (a *app) colour() bool { return a.Terminal && a.colourful() }

// colourful reports whether terminals are to have colours.
func (a *app) colourful() bool { return a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb" }

// withJSON gives c the flag --json.
func (a *app) withJSON(c *cobra.Command, help string) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, help)
	return c
}
