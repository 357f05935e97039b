package daemon

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// beat ticks by a timer of the kernel. For one of its own the Go runtime wakes up a millisecond early and then, in a
// second thread, a dozen times until it is due, which was most of what an idle gateway did.
type beat struct{ timer *os.File }

// newBeat ticks until stop.
func newBeat(every time.Duration) (beat, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return beat{}, fmt.Errorf("make a timer: %w", err)
	}
	interval := unix.NsecToTimespec(int64(every))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: interval, Value: interval}, nil); err != nil {
		_ = unix.Close(fd)
		return beat{}, fmt.Errorf("start a timer: %w", err)
	}
	return beat{os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns at the next tick, at once when that was missed; after stop it returns false.
func (b beat) wait() bool {
	var ticks [8]byte
	_, err := b.timer.Read(ticks[:])
	return err == nil
}

func (b beat) stop() { _ = b.timer.Close() }
