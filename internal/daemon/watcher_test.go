package daemon

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
)

// TestWatcherIsRelaxed: one thread may be late, and the thread of a reader is not, whoever made it.
func TestWatcherIsRelaxed(t *testing.T) {
	labtest.Must(t, relaxWatcher())
	threads, err := os.ReadDir("/proc/self/task")
	labtest.Must(t, err)
	late := 0
	for _, thread := range threads {
		if slack, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns"); err == nil && strings.TrimSpace(string(slack)) == "1000000" {
			late++
		}
	}
	if late == 0 {
		t.Error("no thread may be late")
	}
	runtime.LockOSThread() // the thread ends with the test
	labtest.Must(t, unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(watcherSlack), 0, 0, 0))
	punctual()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || slack != int(readerSlack) {
		t.Errorf("a reader may be %d ns late, %v", slack, err)
	}
}
