package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// watcherSlack is how late the kernel may wake up the watcher of the Go runtime (sysmon). While anything at all runs that looks every
	// 20 µs, which was four fifths of an idle gateway's wake-ups, for what takes milliseconds.
	watcherSlack = time.Millisecond
	// readerSlack is what the kernel grants itself by default.
	readerSlack = 50 * time.Microsecond
)

// relaxWatcher lets the watcher look less often. It needs CAP_SYS_NICE; the unit of the system service says the same.
func relaxWatcher() error {
	tasks, err := os.Open("/proc/self/task")
	if err != nil {
		return err
	}
	defer tasks.Close()
	threads, err := tasks.Readdirnames(2) // in the order in which they were made: that of main, which made the watcher before anything else
	if err != nil {
		return err
	}
	if len(threads) < 2 {
		return fmt.Errorf("the Go runtime has %d threads", len(threads))
	}
	slack := strconv.FormatInt(int64(watcherSlack), 10)
	return os.WriteFile(filepath.Join("/proc", threads[1], "timerslack_ns"), []byte(slack), 0)
}

// punctual has the kernel wake up the calling thread in time, whatever its maker was granted.
func punctual() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(readerSlack), 0, 0, 0) }
