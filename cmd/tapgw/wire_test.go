package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
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
