// Command tapgw is the gateway daemon and its command line in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"

	"tapgw/internal/journal"
)

// version is set when a release is built.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := execute(ctx, realEnv())
	stop()
	os.Exit(status)
}

func realEnv() *Env {
	return &Env{
		Args:        os.Args[1:],
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		Getenv:      os.Getenv,
		Now:         time.Now,
		Terminal:    term.IsTerminal(os.Stdout.Fd()),
		Journal:     journal.InUse(),
		Console:     term.IsTerminal(os.Stderr.Fd()),
		Version:     version,
		Run:         runDaemon,
		Cleanup:     cleanup,
		Demo:        runDemo,
		CheckConfig: checkConfig,
		ShowConfig:  showConfig,
		Socket:      configuredSocket,
		Resolve:     lookup,
		Way:         wayBy,
		Browser:     findBrowser,
		Exec:        execProgram,
		InitConfig:  initConfig,
		Examine:     examine,
		KernelState: kernelState,

		CapturePoints: capturePoints,
	}
}
