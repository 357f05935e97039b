package e2e

import (
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
)

// TestIdleGatewaySleeps: while nothing goes through it, the daemon sleeps. (Where it carries all packets itself it is woken up by each.)
func TestIdleGatewaySleeps(t *testing.T) {
	t.Parallel()
	const window, most = 3 * time.Second, 30 // wake-ups a second; it was 85 before anything was done, and takes less than 10
	w := beginOn(t, lab.Options{}, api.DatapathKernel, "")
	for begun := time.Now(); ; {
		before, since := lab.UseOf(w.daemon.PID()), time.Now()
		time.Sleep(window) // it is what is measured
		perSecond := float64(lab.UseOf(w.daemon.PID()).Since(before).Waits) / time.Since(since).Seconds()
		t.Logf("%.1f wake-ups a second", perSecond)
		if perSecond <= most {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("after %s there are still more than %d", patience, most)
		}
	}
}
