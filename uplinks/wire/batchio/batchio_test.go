package batchio

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newPair is a File and the descriptor of what writes to it.
func newPair(t *testing.T) (*File, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	f, err := NewSocket(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, fds[1]
}

// reader passes on the first byte of each packet, then the error that ended it.
func reader(f *File) (<-chan byte, <-chan error) {
	packets, failed := make(chan byte), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		bufs, sizes := Buffers(4), make([]int, 4)
		for {
			n, err := f.ReadBatch(bufs, sizes, 0)
			if err != nil {
				failed <- err
				return
			}
			for i := range n {
				packets <- bufs[i][0]
			}
		}
	}()
	return packets, failed
}

// TestEveryWaitEnds: packets that come at once, soon and late are read, while the garbage collector stops the world, and
// Close ends each kind of wait.
func TestEveryWaitEnds(t *testing.T) {
	f, out := newPair(t)
	packets, failed := reader(f)
	pauses := []time.Duration{0, patience / 2, 0, near / 10, near / 10, near / 10, near / 10, near / 10, near / 10, 3 * near, 0, near / 2, 5 * near}
	for i, pause := range pauses {
		time.Sleep(pause) // it is the pause that is tested
		runtime.GC()
		if _, err := unix.Write(out, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-packets:
			if got != byte(i) {
				t.Errorf("packet %d instead of %d", got, i)
			}
		case <-time.After(time.Minute):
			t.Fatalf("packet %d was not read", i)
		}
	}
	time.Sleep(3 * near) // so that the last of the waits has begun
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("the reader ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close did not end the reader")
	}
}
