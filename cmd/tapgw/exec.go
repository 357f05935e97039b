package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func (a *app) execCommand() *cobra.Command {
	var via string
	c := &cobra.Command{
		Use:   "exec --via UPLINK -- COMMAND [ARGUMENT]...",
		Short: "Run a command whose new sessions use one uplink alone",
		Long: `Run a command, and all that it starts, whose new sessions use one uplink alone
and are refused while that cannot be used. No rule counts for them. Names are
resolved by who does that for the whole host.

To run it as yourself without being in the group tapgw:
  sudo tapgw exec --via lte -- sudo -u "$USER" curl https://example.com

Exit status: that of the command; 126 when it cannot be run; 127 when there is
none; 10 when there is no such uplink. Needs root or the group tapgw.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if via == "" {
				return misuse(c, errors.New("--via must name an uplink"))
			}
			if err := a.client().Pin(c.Context(), via); err != nil {
				return err
			}
			return cannotRun(args[0], a.Exec(args))
		},
	}
	c.Flags().StringVar(&via, "via", "", "name of the uplink")
	c.Flags().SetInterspersed(false)
	return c
}

// cannotRun gives the error of a command that could not be started the exit status that shells do.
func cannotRun(command string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return statusError{fmt.Errorf("no command %s in PATH", clean(command)), exitNoCommand}
	}
	return statusError{fmt.Errorf("run %s: %w", clean(command), err), exitNotRun}
}

// execProgram replaces this program by a command, and returns only when it cannot.
func execProgram(command []string) error {
	path := command[0]
	if !strings.Contains(path, "/") {
		if path = inPath(path); path == "" {
			return fs.ErrNotExist
		}
	}
	return syscall.Exec(path, command, os.Environ())
}

// inPath finds a program as a shell does, "" for none.
func inPath(name string) string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path
		}
	}
	return ""
}
