// Command tapgw is the gateway daemon and its command line in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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
		Terminal:    isTerminal(os.Stdout),
		Journal:     journal.InUse(),
		Console:     isTerminal(os.Stderr),
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

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
