package hostconf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ReadState reads a small file that WriteState wrote; of a file that others could have written, or a large one, nothing.
func ReadState(path string) ([]byte, error) {
	data, err := readTrusted(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// ReadSecret is ReadState of a file that others cannot even read.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("others may read it: chmod 600 %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return ReadState(path)
}

// WriteState replaces a file at once: after a crash it has the old content or the new.
func WriteState(path string, data []byte) error {
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// StateDir is where files that outlive a reboot are: what systemd made for the service (the value of STATE_DIRECTORY), else below
// /var/lib for a socket below /run, else beside the socket.
func StateDir(given, socket string) string {
	if first, _, _ := strings.Cut(given, ":"); filepath.IsAbs(first) {
		return filepath.Clean(first)
	}
	dir := filepath.Dir(socket)
	for _, run := range []string{"/run", "/var/run"} {
		if dir == run {
			return "/var/lib/tapgw"
		}
		if below, ok := strings.CutPrefix(dir, run+"/"); ok {
			return filepath.Join("/var/lib", below)
		}
	}
	return dir
}
