// Command tapgw-tray shows the uplinks of a running gateway in the panel of a desktop, and switches them.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"tapgw/api"
	"tapgw/internal/tray"
)

// version is set when a release is built.
var version = "devel"

const usage = `tapgw-tray shows the uplinks of a running gateway in the panel of a desktop.

It needs no privileges; to change things be a member of the group tapgw.

`

func main() {
	flags := pflag.NewFlagSet("tapgw-tray", pflag.ContinueOnError)
	socket := flags.String("socket", "", "control socket (default "+api.DefaultSocket+"; also "+api.SocketEnv+")")
	shown := flags.Bool("version", false, "print the version")
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage+flags.FlagUsages()) }
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, pflag.ErrHelp):
		return
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(os.Stderr, "tapgw-tray:", cmp.Or(err, errors.New("it takes no arguments")))
		os.Exit(2)
	case *shown:
		fmt.Println("tapgw-tray", version)
		return
	}
	client := &api.Client{Socket: cmp.Or(*socket, os.Getenv(api.SocketEnv), api.DefaultSocket)}
	if err := run(client); err != nil {
		fmt.Fprintln(os.Stderr, "tapgw-tray:", err)
		os.Exit(1)
	}
}

func run(client *api.Client) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return tray.Run(ctx, tray.Options{Client: client, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}
