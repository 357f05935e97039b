package hostconf

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tapgw/internal/lab/labtest"
)

// someone is a user without a name.
const someone = 65533

// TestFilesOfTheService: in the service's folder root trusts what the service wrote and leaves its own files to it, and nobody else's.
func TestFilesOfTheService(t *testing.T) {
	labtest.RequireRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "undo.json")
	labtest.Must(t, os.Chown(dir, someone, someone))
	owner := func(path string) uint32 {
		t.Helper()
		info, err := os.Stat(path)
		labtest.Must(t, err)
		return info.Sys().(*syscall.Stat_t).Uid
	}
	labtest.Must(t, WriteState(path, []byte(goodJournal)))
	lock, err := Lock(filepath.Join(dir, "lock"))
	labtest.Must(t, err)
	if u := owner(path); u != someone {
		t.Errorf("a file is of user %d", u)
	}
	if u := owner(filepath.Join(dir, "lock")); u != someone {
		t.Errorf("the lock is of user %d", u)
	}
	labtest.Must(t, lock.Close())
	_, err = Open(path)
	labtest.Must(t, err)

	labtest.Must(t, os.Chown(path, someone+1, someone))
	if _, err := Open(path); !errors.Is(err, ErrJournal) {
		t.Errorf("a file of somebody else: %v", err)
	}
	labtest.Must(t, errors.Join(os.Chown(path, someone, someone), os.Chmod(dir, 0o777)))
	if _, err := Open(path); !errors.Is(err, ErrJournal) {
		t.Errorf("a file where everybody may write: %v", err)
	}
}
