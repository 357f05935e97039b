package daemon

import (
	"runtime"
	"testing"
)

// TestProcessors: at rest there is one, however many readers come, and as many as they need afterwards.
func TestProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	var p processors
	p.provide(3)
	p.provide(2)
	expect := func(when string, want int) {
		t.Helper()
		if n := runtime.GOMAXPROCS(0); n != want {
			t.Errorf("%s: %d processors, want %d", when, n, want)
		}
	}
	expect("busy", runtime.NumCPU()+3)
	p.rest(true)
	p.provide(5)
	expect("at rest", 1)
	p.rest(false)
	expect("busy again", runtime.NumCPU()+5)
}
