package daemon

import (
	"errors"
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
	b := beat{os.NewFile(uintptr(fd), "timer")}
	if err := b.every(every); err != nil {
		b.stop()
		return beat{}, fmt.Errorf("start a timer: %w", err)
	}
	return b, nil
}

// every has it tick at other intervals from now on. After stop it fails.
func (b beat) every(interval time.Duration) error {
	timer, err := b.timer.SyscallConn()
	if err != nil {
		return err
	}
	t := unix.NsecToTimespec(int64(interval))
	outer := timer.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Interval: t, Value: t}, nil)
	})
	return errors.Join(outer, err)
}

// wait returns at the next tick, at once when that was missed; after stop it returns false.
func (b beat) wait() bool {
	var ticks [8]byte
	_, err := b.timer.Read(ticks[:])
	return err == nil
}

func (b beat) stop() { _ = b.timer.Close() }
