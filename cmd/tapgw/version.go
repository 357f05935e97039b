package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// versions is the answer of `tapgw version --json`.
type versions struct {
	Version string `json:"version"` // of this program
	Go      string `json:"go"`
	Daemon  string `json:"daemon"` // of the running daemon, "" when there is none
}

func (a *app) versionCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of the running daemon",
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions{Version: a.Version, Go: runtime.Version()}
			v.Daemon, _ = a.client().Version(c.Context()) // no daemon is no error here
			if a.json {
				return writeJSON(a.Stdout, v)
			}
			if v.Daemon == "" {
				v.Daemon = "not running"
			}
			_, err := fmt.Fprintf(a.Stdout, "tapgw %s (%s %s/%s)\ndaemon: %s\n", v.Version, v.Go, runtime.GOOS, runtime.GOARCH, clean(v.Daemon))
			return err
		},
	}, "one JSON document")
}
