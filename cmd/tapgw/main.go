// Command tapgw is the gateway daemon and its command line in one binary.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
		Version:     version,
		Run:         runDaemon,
		Cleanup:     func(context.Context, RunOptions) ([]string, error) { return nil, errNotWired },
		Demo:        func(context.Context, DemoOptions) error { return errNotWired },
		CheckConfig: func(string) ([]string, error) { return nil, errNotWired },
		ShowConfig:  func(string) ([]byte, error) { return nil, errNotWired },
		InitConfig:  func(context.Context) ([]byte, error) { return nil, errNotWired },
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
