package daemon

import (
	"runtime"
	"sync"
)

// processors is how many the Go scheduler has.
type processors struct {
	mu      sync.Mutex
	readers int
	resting bool
}

// provide has one for each reader beyond those of the machine: a reader keeps its own while it waits for a moment, and the others must
// not wait for that. With as many as the machine has, new connections per second were half.
func (p *processors) provide(readers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readers = max(p.readers, readers)
	p.set()
}

// rest leaves a single one: where there are others, each goroutine that is to go on wakes up a thread that looks for more such.
func (p *processors) rest(resting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resting = resting
	p.set()
}

func (p *processors) set() {
	n := runtime.NumCPU() + p.readers
	if p.resting {
		n = 1
	}
	if n != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}
