package lab_test

import (
	"os"
	"testing"
	"time"

	"tapgw/internal/lab"
)

// TestUseOf: a process that waits and computes is seen to.
func TestUseOf(t *testing.T) {
	before := lab.UseOf(os.Getpid())
	for used := (lab.Use{}); used.Ran < 10*time.Millisecond || used.Waits == 0; used = lab.UseOf(os.Getpid()).Since(before) {
		time.Sleep(time.Millisecond)
	}
	if len(lab.UseOf(-1)) > 0 {
		t.Error("a process that cannot be was read")
	}
}
