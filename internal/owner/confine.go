package owner

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// confined is how the names of cgroups of ours begin.
const confined = "tapgw-exec-"

var errNoCgroups = errors.New("this host has no cgroups of version 2")

// Confine moves a process into a new cgroup below the one that it is in, where its later children are too, so that limits and
// whoever ends a whole session still find them. It returns the path from the root of the hierarchy.
func (f *Finder) Confine(pid int) (path string, err error) {
	if f.cgroups == nil {
		return "", errNoCgroups
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("find the cgroup of process %d: %w", pid, err)
	}
	parent, ok := unified(string(text))
	if !ok {
		return "", fmt.Errorf("the cgroup of process %d cannot be used: it is not seen from here", pid)
	}
	path = filepath.Join(parent, confined+strconv.FormatUint(rand.Uint64(), 36))
	if err := os.Mkdir(f.cgroups.dirOf(path), 0o755); err != nil {
		return "", fmt.Errorf("make a cgroup: %w", err)
	}
	if err := f.cgroups.move(pid, path); err != nil {
		return "", errors.Join(fmt.Errorf("move process %d to a cgroup: %w", pid, err), os.Remove(f.cgroups.dirOf(path)))
	}
	return path, nil
}

// Released removes a cgroup of Confine if its processes have ended, and reports whether it is gone.
func (f *Finder) Released(path string) bool {
	if f.cgroups == nil || !isConfined(path) {
		return true
	}
	err := unix.Rmdir(f.cgroups.dirOf(path))
	return err == nil || errors.Is(err, unix.ENOENT)
}

// Release moves what still runs in a cgroup of Confine back to the one above, and removes it. It reports whether it did.
func (f *Finder) Release(path string) bool {
	if f.cgroups == nil || !isConfined(path) {
		return false
	}
	for _, pid := range f.cgroups.processes(path) {
		_ = f.cgroups.move(pid, filepath.Dir(path)) // it may have ended
	}
	return unix.Rmdir(f.cgroups.dirOf(path)) == nil
}

// isConfined keeps a journal from naming other cgroups.
func isConfined(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && strings.HasPrefix(filepath.Base(path), confined)
}

func (c *cgroups) dirOf(path string) string { return filepath.Join(c.root, path) }

func (c *cgroups) move(pid int, path string) error {
	return os.WriteFile(filepath.Join(c.dirOf(path), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// unified reads the path of a process's cgroup of version 2; false where it is outside of what we see.
func unified(text string) (path string, ok bool) {
	for line := range strings.Lines(text) {
		if path, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); found {
			return path, strings.HasPrefix(path, "/") && !slices.Contains(strings.Split(path, "/"), "..")
		}
	}
	return "", false
}
