package demo

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The files in the folder.
const (
	configFile = "tapgw.yaml"
	socketFile = "tapgw.sock"
)

// folder is a file system in memory that is mounted nowhere: like the namespaces it has no name outside the processes that
// hold its descriptor, so it cannot be left behind.
type folder struct{ *os.File }

func newFolder() (*folder, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file system in memory (Linux 5.2 or newer can): %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make a file system in memory: %w", err)
	}
	const safely = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, safely)
	if err != nil {
		return nil, fmt.Errorf("make a file system in memory: %w", err)
	}
	if err := unix.Fchmodat(root, ".", 0o700, 0); err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("close the file system in memory to others: %w", err)
	}
	return &folder{os.NewFile(uintptr(root), "folder")}, nil
}

// path is the path of a file in the folder, for this process.
func (f *folder) path(name string) string { return inherited(f.Fd(), name) }

// inherited is the path of a file in the folder for the process that holds it as descriptor fd.
func inherited(fd uintptr, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", fd, name) }
