package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestDaemonSurvivesHangUpAndClosedPipe(t *testing.T) {
	if runDaemon(t.Context(), RunOptions{ConfigPath: filepath.Join(t.TempDir(), "missing.yaml")}) == nil {
		t.Fatal("ran without its configuration")
	}
	if !signal.Ignored(syscall.SIGPIPE) {
		t.Error("the end of a pipe would kill it")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil { // kills this test if it is not caught
		t.Fatal(err)
	}
}

// TestLookupInVain tells nobody which name server was asked.
func TestLookupInVain(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := lookup(ctx, "example.com"); err == nil || err.Error() != "no name server answers" {
		t.Error(err)
	}
}
