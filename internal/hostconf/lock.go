package hostconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRunning means that another process holds the lock; the text around it says which.
var ErrRunning = errors.New("tapgw is already running")

// InstanceLock is held while this process is the only one that changes the host. It ends with the process.
type InstanceLock struct{ file *os.File }

// Lock takes the lock at path and writes our process ID into it. It never waits: while another process holds the lock it
// fails with ErrRunning.
func Lock(path string) (*InstanceLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, unopened(err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, unopened(err)
		}
		current, err := claim(f, path)
		if current && err == nil {
			return &InstanceLock{file: f}, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// unopened says what helps where there can be no lock: it lies beside the control socket.
func unopened(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("lock: %w; use sudo", err)
	}
	return fmt.Errorf("lock: %w; name another place by api.socket or --socket", err)
}

// claim locks f and signs it. It reports false when f was removed by its last holder before we locked it.
func claim(f *os.File, path string) (current bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, fmt.Errorf("%w: %s", ErrRunning, holder(f))
	}
	if err != nil {
		return false, os.NewSyscallError("flock", err)
	}
	if !same(f, path) {
		return false, nil
	}
	if err := f.Truncate(0); err != nil {
		return false, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return true, errors.Join(err, hand(f))
}

// holder names the process that signed the lock.
func holder(f *os.File) string {
	text := make([]byte, 16)
	n, err := f.ReadAt(text, 0)
	pid, bad := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil && !errors.Is(err, io.EOF) || bad != nil || pid <= 0 {
		return "process unknown"
	}
	return fmt.Sprintf("process %d", pid)
}

func same(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, theirs)
}

// Close releases the lock and removes its file.
func (l *InstanceLock) Close() error { return errors.Join(os.Remove(l.file.Name()), l.file.Close()) }
