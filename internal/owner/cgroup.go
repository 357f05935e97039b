package owner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// kernfsHandle is the type of a file handle that is a cgroup's number (FILEID_KERNFS).
const kernfsHandle = 0xfe

const (
	maxProcs   = 4096 // of one cgroup that are looked at
	maxCgroups = 4096 // that are searched for one, as its packet waits
)

// cgroups is the mounted hierarchy of cgroups (version 2).
type cgroups struct {
	root string // where it is mounted
	dir  *os.File

	mu    sync.Mutex
	found map[uint64]string // by search, "" for none: a cgroup keeps its place, and its number is never another's
}

// openCgroups finds the hierarchy; beside the older ones it may be mounted anywhere.
func openCgroups() (*cgroups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	root := cgroupMount(string(mounts))
	if root == "" {
		return nil, fmt.Errorf("no cgroup2 is mounted: %w", os.ErrNotExist)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	return &cgroups{root: root, dir: dir, found: make(map[uint64]string)}, nil
}

// cgroupMount returns where cgroup2 is mounted, "" for nowhere (proc_pid_mountinfo(5)).
func cgroupMount(mounts string) string {
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4]
		}
	}
	return ""
}

// path returns that of a cgroup by its number, from the root of the hierarchy.
func (c *cgroups) path(id uint64) (string, error) {
	handle := unix.NewFileHandle(kernfsHandle, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(c.dir.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if errors.Is(err, unix.EPERM) { // without CAP_DAC_READ_SEARCH
		return c.search(id)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	below, ok := strings.CutPrefix(strings.TrimSuffix(path, " (deleted)"), strings.TrimSuffix(c.root, "/"))
	if !ok {
		return "", errAnswer
	}
	return filepath.Clean("/" + below), nil
}

// search looks through the hierarchy, where the number of a folder is that of its cgroup.
func (c *cgroups) search(id uint64) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path, known := c.found[id]
	if !known {
		path = c.walk(id)
		keep(c.found, id, path)
	}
	if path == "" {
		return "", fs.ErrNotExist
	}
	return path, nil
}

// walk is search without memory, "" for none.
func (c *cgroups) walk(id uint64) (found string) {
	looked := 0
	_ = filepath.WalkDir(c.root, func(path string, entry fs.DirEntry, _ error) error { // one that ended meanwhile cannot be read
		if entry == nil || !entry.IsDir() {
			return nil
		}
		if looked++; looked > maxCgroups {
			return fs.SkipAll
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Ino == id {
			found = filepath.Clean("/" + strings.TrimPrefix(path, c.root))
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// processes lists those of a cgroup.
func (c *cgroups) processes(path string) (list []int) {
	text, err := os.ReadFile(filepath.Join(c.dirOf(path), "cgroup.procs"))
	if err != nil {
		return nil // it is gone, or has none of its own
	}
	for line := range strings.Lines(string(text)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 && len(list) < maxProcs {
			list = append(list, pid)
		}
	}
	return list
}

// cgroupOf reads the path of a process's cgroup from the text of its file in /proc (cgroups(7)): that of version 2, or of systemd's own
// hierarchy where the other has none.
func cgroupOf(text string) (path string) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) < 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		unified := parts[0] == "0" && parts[1] == ""
		if unified && (path == "" || parts[2] != "/") || path == "" && slices.Contains(strings.Split(parts[1], ","), "name=systemd") {
			path = parts[2]
		}
	}
	return path
}
