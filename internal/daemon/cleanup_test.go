package daemon

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/internal/hostconf"
	"tapgw/internal/lab/labtest"
)

func TestCleanupFindsTheSocketOfTheEnvironment(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "tapgw.sock")
	t.Setenv("TAPGW_API_SOCKET", socket)
	lock, err := hostconf.Lock(lockFile(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	err = labtest.Namespace(t, "host").Do(func() error { // whatever it may clean up by mistake is not this host's
		_, err := Cleanup(Options{Logger: slog.New(slog.DiscardHandler)})
		return err
	})
	if !errors.Is(err, hostconf.ErrRunning) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("got %v, want %v and what to do", err, hostconf.ErrRunning)
	}
	_, err = Cleanup(Options{Socket: filepath.Join(lockFile(socket), "x", "s"), Logger: slog.New(slog.DiscardHandler)}) // below a file
	if err == nil || strings.Contains(err.Error(), "stop it first") {
		t.Errorf("where there can be no lock: %v", err)
	}
}
