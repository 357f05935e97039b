package batchio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a system call that blocks for long does in the runtime itself. An ordinary system call keeps the Go processor in
// case it is short, and a runtime thread wakes up some sixty times until it takes the processor away after 10 ms: for
// each single packet that an idle gateway receives. The runtime promises to keep both for such callers
// (go.dev/issue/67401).
//
//go:linkname entersyscallblock runtime.entersyscallblock
func entersyscallblock()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// pollIdle is ppoll(2) without a limit that gives the Go processor away at once. Nothing that may grow the stack can be
// called while it is away.
//
//go:nosplit
//go:norace
//go:noinline
func pollIdle(fds *[2]unix.PollFd) unix.Errno {
	entersyscallblock()
	_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(len(fds)), 0, 0, 0, 0)
	exitsyscall()
	return errno
}
