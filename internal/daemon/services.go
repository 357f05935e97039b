package daemon

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/nat"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

// services are the host's UDP services as last seen.
type services struct {
	reader  *wire.SocketReader // nil before the first look
	next    time.Time          // when to look again
	ports   []uint16
	visible []uint16 // those outside the pool, as many as the socket filters can name
	unknown bool     // the kernel cannot tell
}

// socketShare is how many times as long as a listing of sockets took passes until the next: a busy server has many.
const socketShare = 200

// findServices looks which ports and UDP services the host has, and reports whether the services changed. The sockets of the uplinks follow
// with followPorts. What cannot be listed now is listed the next time.
func (d *Daemon) findServices() (changed bool) {
	s, begun := &d.services, time.Now()
	if s.unknown || begun.Before(s.next) {
		return false
	}
	sockets, err := s.read()
	s.next = begun.Add(socketShare * time.Since(begun))
	if errors.Is(err, wire.ErrNoServices) {
		d.log.Warn("answers of UDP services of this host may leave by another uplink than the questions came in", "error", err)
		s.unknown = true
	}
	if err != nil {
		return false
	}
	d.held.sockets.Store(sockets)
	if slices.Equal(sockets.Services, s.ports) {
		return false
	}
	hidden, visible := split(sockets.Services, d.pool)
	s.ports, s.visible = sockets.Services, bounded(visible, s.visible)
	d.gateway.SetServices(s.visible, hidden)
	if d.fast != nil {
		d.complain(d.fast.SetServices(slices.Concat(s.visible, hidden)))
	}
	return true
}

// read lists the sockets of this host.
func (s *services) read() (_ *wire.Sockets, err error) {
	if s.reader == nil {
		if s.reader, err = wire.OpenSocketReader(); err != nil {
			return nil, err
		}
	}
	return s.reader.Read()
}

// split separates the ports that NAT may use from the others.
func split(ports []uint16, pool []nat.PortRange) (pooled, others []uint16) {
	for _, port := range ports {
		if slices.ContainsFunc(pool, func(r nat.PortRange) bool { return r.First <= port && port <= r.Last }) {
			pooled = append(pooled, port)
		} else {
			others = append(others, port)
		}
	}
	return pooled, others
}

// bounded leaves out what is too much for a socket filter, the ports that were not there before first, so that no program
// that opens many sockets drives a service out.
func bounded(ports, before []uint16) []uint16 {
	known := func(port uint16) bool { _, found := slices.BinarySearch(before, port); return found }
	kept := slices.DeleteFunc(slices.Clone(ports), func(port uint16) bool { return !known(port) })
	for _, port := range ports {
		if !known(port) && len(kept) < wire.MaxFilterServices {
			kept = append(kept, port)
		}
	}
	slices.Sort(kept)
	return kept
}

const (
	// settleLimit bounds how long the answer of a service waits for its question to be read.
	settleLimit = 20 * time.Millisecond
	// settlePause is how long no answer waits after one has waited in vain, because the readers cannot keep up. It doubles
	// each time, up to settlePauseMax, as everything else waits as well.
	settlePause    = 200 * time.Millisecond
	settlePauseMax = 10 * time.Second
)

// patience is until when settle does not wait.
type patience struct {
	mu    sync.Mutex
	until time.Time
	pause time.Duration
}

// lost notes a wait in vain.
func (p *patience) lost(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = min(max(2*p.pause, settlePause), settlePauseMax)
	p.until = now.Add(p.pause)
}

// left reports whether it pays to wait.
func (p *patience) left(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !now.Before(p.until)
}

// restored notes a wait that was not in vain.
func (p *patience) restored() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = 0
}

// settle waits until what the uplinks had received when it was called has been handled.
func (p *pumps) settle() {
	begun := time.Now()
	if !p.patience.left(begun) {
		return
	}
	for id := range p.ports {
		port := p.ports[id].Load()
		if port != nil && !p.settled(port, begun) {
			return
		}
	}
	if p.called {
		for _, q := range p.upcall.Load().Queues() {
			if !p.settled(q, begun) {
				return
			}
		}
	}
	p.patience.restored()
}

// settled waits until a reader has handled what was there, and reports whether that was soon enough.
func (p *pumps) settled(r interface{ Handled(*batchio.Progress) bool }, begun time.Time) bool {
	for progress := (batchio.Progress{}); !r.Handled(&progress); {
		if now := time.Now(); now.Sub(begun) > settleLimit {
			p.patience.lost(now)
			return false
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		runtime.Gosched() // the reader may need the only processor that is not at rest
	}
	return true
}
