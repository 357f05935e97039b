package daemon

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapgw/probe"
)

// beat ticks by a timer of the kernel. For one of its own the Go runtime wakes up a millisecond early and then, in a
// second thread, a dozen times until it is due, which was most of what an idle gateway did. What never waits is asked of the
// kernel by raw system calls, as each other one wakes up that thread too.
type beat struct {
	timer *os.File
	raw   syscall.RawConn
}

// newBeat returns one that does not tick yet.
func newBeat() (beat, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return beat{}, fmt.Errorf("make a timer: %w", err)
	}
	b := beat{timer: os.NewFile(uintptr(fd), "timer")}
	b.raw, err = b.timer.SyscallConn()
	return b, err
}

// started is one instant by both clocks, so that instants which are the same in Go are so in the kernel.
var started = newClock()

// at has it tick once, at once where the instant has passed. After stop it fails.
func (b beat) at(t time.Time) error { return b.set(t, 0) }

// every has it tick at these intervals from now on, in step with all that do likewise. After stop it fails.
func (b beat) every(interval time.Duration) error {
	now := time.Now()
	return b.set(now.Add(interval-probe.Since(now, interval)), interval)
}

func (b beat) set(first time.Time, interval time.Duration) error {
	due := max(1, started.monotonic+first.Sub(started.start)) // 0 would stop it
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(due)), Interval: unix.NsecToTimespec(int64(interval))}
	var errno unix.Errno
	err := b.raw.Control(func(fd uintptr) {
		_, _, errno = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	})
	if errno != 0 {
		err = errors.Join(err, errno)
	}
	return err
}

// wait returns at the next tick, at once when that was missed; after stop it returns false.
func (b beat) wait() bool {
	var ticks [8]byte
	err := b.raw.Read(func(fd uintptr) bool {
		_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&ticks[0])), uintptr(len(ticks)))
		return errno == 0
	})
	return err == nil
}

func (b beat) stop() { _ = b.timer.Close() }

// alarm is the timer of a prober.
type alarm struct {
	beat
	fired chan time.Time
}

// newAlarm returns nil where the kernel has no more timers.
func newAlarm() probe.Timer {
	b, err := newBeat()
	if err != nil {
		return nil
	}
	a := &alarm{b, make(chan time.Time, 1)}
	go func() {
		for a.wait() {
			select {
			case a.fired <- time.Now():
			default: // the one before was not taken yet
			}
		}
	}()
	return a
}

func (a *alarm) At(t time.Time)          { _ = a.at(t) } // it fails when the prober has ended
func (a *alarm) Fired() <-chan time.Time { return a.fired }
func (a *alarm) Stop()                   { a.stop() }
