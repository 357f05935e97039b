package daemon

import (
	"errors"
	"log/slog"
	"path/filepath"
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
	if !errors.Is(err, hostconf.ErrRunning) {
		t.Errorf("got %v, want %v", err, hostconf.ErrRunning)
	}
}
