// Package batchio reads packets from descriptors that hand out one per system call (TAP queues, packet sockets) in
// batches: as many as there are without blocking, then one poll(2) when there are none. Reads skip the Go scheduler, as
// they never block; only the poll tells it. Closing from another goroutine is safe and wakes the reader.
package batchio

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxBytes ends a batch: what was read is still in the second-level cache when it is written out again.
const MaxBytes = 192 << 10

// BufferLen holds the largest packet there is: virtio header, Ethernet header and 64 KiB, rounded up.
const BufferLen = 65536 + 64

// Buffers returns n buffers of BufferLen bytes. Their starts fall on different cache sets, which buffers at a power of
// two apart would not.
func Buffers(n int) [][]byte {
	const stride = BufferLen + 64*3
	arena := make([]byte, n*stride)
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = arena[i*stride : i*stride+BufferLen : i*stride+BufferLen]
	}
	return bufs
}

// File is a nonblocking descriptor with packet boundaries.
type File struct {
	life   sync.RWMutex // held for reading while fd is in use, for writing to close it
	closed atomic.Bool
	fd     int
	call   uintptr // that reads one packet
	wake   int     // eventfd, readable once closed
	poll   [2]unix.PollFd
	soon   int        // how many waits in a row were short; before the first, all Go processors but one may be at rest
	failed unix.Errno // found behind the packets of the last batch

	turn    atomic.Uint32 // of the reader: all packets of the turns before are handled
	waiting atomic.Bool   // the reader has nothing in hand
}

// New takes over fd, which must be nonblocking; when it fails, fd is closed.
func New(fd int) (*File, error) { return newFile(fd, unix.SYS_READ) }

// NewSocket is New for a socket, which recvfrom(2) reads an eighth faster than read(2) does.
func NewSocket(fd int) (*File, error) { return newFile(fd, unix.SYS_RECVFROM) }

func newFile(fd int, call uintptr) (*File, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	f := &File{fd: fd, call: call, wake: wake}
	f.poll = [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	return f, nil
}

// Close wakes the reader, waits until nobody uses the descriptor and closes it. A second call does nothing.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	if _, err := unix.Write(f.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	f.life.Lock()
	defer f.life.Unlock()
	_ = unix.Close(f.wake)
	return unix.Close(f.fd)
}

// Acquire returns the descriptor and keeps it open until Release; after Close it returns net.ErrClosed.
func (f *File) Acquire() (int, error) {
	f.life.RLock()
	if f.closed.Load() {
		f.life.RUnlock()
		return -1, net.ErrClosed
	}
	return f.fd, nil
}

// Release ends what Acquire began.
func (f *File) Release() { f.life.RUnlock() }

// ReadBatch blocks until a packet is there, then reads packets until there is none, bufs is full or MaxBytes are
// exceeded. Packet i lies at bufs[i][skip:], sizes[i] bytes long. It is for one goroutine at a time, best one locked to
// its thread. Errors are net.ErrClosed or a unix.Errno.
func (f *File) ReadBatch(bufs [][]byte, sizes []int, skip int) (int, error) {
	fd, err := f.Acquire()
	if err != nil {
		return 0, err
	}
	defer f.Release()
	f.turn.Add(1)
	for yielded := false; ; {
		if errno := f.failed; errno != 0 {
			f.failed = 0
			return 0, errno
		}
		if n := f.drain(fd, bufs, sizes, skip); n > 0 {
			return n, nil
		}
		switch {
		case f.failed != 0:
		case !yielded: // a poll costs more than letting go first who fills the queue, perhaps on this processor
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			yielded = true
		default:
			f.waiting.Store(true)
			err := f.wait()
			f.waiting.Store(false)
			if err != nil {
				return 0, err
			}
		}
	}
}

// Progress is how far a waiter has seen a reader come.
type Progress struct {
	emptied bool
	turn    uint32
}

// Handled reports whether the reader has handled all packets that were there when the waiter first asked.
func (f *File) Handled(p *Progress) bool {
	fd, err := f.Acquire()
	if err != nil {
		return true
	}
	defer f.Release()
	if !p.emptied {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds[:], 0); err == nil && n > 0 && fds[0].Revents&unix.POLLIN != 0 {
			return false
		}
		p.emptied, p.turn = true, f.turn.Load() // the last may be in hand
	}
	return f.waiting.Load() || f.turn.Load() != p.turn
}

// drain reads without blocking; an error other than "nothing there" is left in f.failed.
func (f *File) drain(fd int, bufs [][]byte, sizes []int, skip int) (n int) {
	for total := 0; n < len(bufs) && total < MaxBytes; {
		b := bufs[n][skip:]
		r, _, errno := unix.RawSyscall6(f.call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		switch errno {
		case 0:
			sizes[n] = int(r)
			total += int(r)
			n++
		case unix.EINTR:
		case unix.EAGAIN:
			return n
		default:
			f.failed = errno
			return n
		}
	}
	return n
}

// patience is how long wait stays hidden from the Go scheduler: under load the next packet comes sooner, and handing the
// processor over and taking it back costs a third of all time. It bounds what the garbage collector may have to wait.
const patience = 200_000 // ns

const (
	// near is how soon the next packet must come for it to pay to keep the Go processor until then. After that time the
	// runtime takes it away by itself.
	near = 10 * time.Millisecond
	// brisk so many packets in a row that came so soon let the next one be expected soon too.
	brisk = 4
)

// wait blocks until there is something to read, an error included, or the file is closed.
func (f *File) wait() error {
	if f.soon > 0 && f.pollHidden() {
		return nil
	}
	if f.soon >= brisk {
		limit := unix.NsecToTimespec(int64(near))
		if n, err := unix.Ppoll(f.poll[:], &limit, nil); n > 0 || err != nil {
			return f.woken(err)
		}
		f.soon = 0
	}
	begun := time.Now()
	errno := pollIdle(&f.poll)
	f.soon++
	if time.Since(begun) >= near {
		f.soon = 0
	}
	if errno != 0 {
		return f.woken(errno)
	}
	return f.woken(nil)
}

// pollHidden waits for a moment without telling the Go scheduler.
func (f *File) pollHidden() bool {
	limit := unix.Timespec{Nsec: patience} // the kernel writes to it
	n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&f.poll[0])), uintptr(len(f.poll)),
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return n > 0 && int(n) <= len(f.poll) && !f.closed.Load()
}

// woken is what the end of a poll means; after a signal there is nothing to read and the next wait goes on.
func (f *File) woken(err error) error {
	if f.closed.Load() {
		return net.ErrClosed
	}
	if err == unix.EINTR { //nolint:errorlint // a bare errno
		return nil
	}
	return err
}

// Write writes one packet without blocking. Errors are net.ErrClosed or a unix.Errno.
func (f *File) Write(b []byte) error {
	fd, err := f.Acquire()
	if err != nil {
		return err
	}
	defer f.Release()
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
