package owner

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kernfsHandle is the type of a file handle that is a cgroup's number (FILEID_KERNFS).
const kernfsHandle = 0xfe

// maxProcs bounds the processes of one cgroup that are looked at.
const maxProcs = 4096

// cgroups is the mounted hierarchy of cgroups (version 2).
type cgroups struct {
	root string // where it is mounted
	dir  *os.File
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
	return &cgroups{root, dir}, nil
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
