package hostconf

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// service is the user and group whose folder a file is in, for root: the service runs as a user of its own, and what it leaves root cleans,
// and the other way around.
func service(path string) (uid, gid int, ok bool) {
	var st unix.Stat_t
	if os.Geteuid() != 0 || unix.Stat(filepath.Dir(path), &st) != nil || st.Mode&0o022 != 0 {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

// ours reports whether a file of that user is as good as written by us.
func ours(path string, uid uint32) bool {
	user, _, ok := service(path)
	return int(uid) == os.Geteuid() || ok && int(uid) == user
}

// hand gives a file to the service, unless it has other names, as somebody else's that was linked there has.
func hand(f *os.File) error {
	uid, gid, ok := service(f.Name())
	if !ok || uid == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Nlink != 1 {
		return nil
	}
	return f.Chown(uid, gid)
}
