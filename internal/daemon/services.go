package daemon

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/nat"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

// services are the host's UDP services as last seen.
type services struct {
	ports   []uint16
	visible []uint16 // those outside the pool
	unknown bool     // the kernel cannot tell
}

// findServices looks which UDP services the host has, and reports whether that changed. The sockets of the uplinks follow
// with followPorts.
func (d *Daemon) findServices() (changed bool) {
	s := &d.services
	if s.unknown {
		return false
	}
	ports, err := wire.Services()
	if err != nil {
		d.log.Warn("answers of UDP services of this host may leave by another uplink than the questions came in", "error", err)
		s.unknown = true
		return false
	}
	if slices.Equal(ports, s.ports) {
		return false
	}
	var hidden []uint16
	s.ports, s.visible = ports, nil
	for _, port := range ports {
		if pooled(d.pool, port) {
			hidden = append(hidden, port)
		} else {
			s.visible = append(s.visible, port)
		}
	}
	d.gateway.SetServices(s.visible, hidden)
	return true
}

const (
	// settleLimit bounds how long the answer of a service waits for its question to be read.
	settleLimit = 20 * time.Millisecond
	// settlePause is how long no answer waits after one has waited in vain, because the readers cannot keep up.
	settlePause = 200 * time.Millisecond
)

// settle waits until what the uplinks had received when it was called has been handled. One goroutine at a time may call it.
func (p *pumps) settle() {
	begun := time.Now()
	if begun.Before(p.unsettled) {
		return
	}
	for id := range p.ports {
		port, progress := p.ports[id].Load(), batchio.Progress{}
		for port != nil && !port.Handled(&progress) {
			now := time.Now()
			if now.Sub(begun) > settleLimit {
				p.unsettled = now.Add(settlePause)
				return
			}
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
}

// pooled reports whether a port may be an outside port of NAT.
func pooled(pool []nat.PortRange, port uint16) bool {
	return slices.ContainsFunc(pool, func(r nat.PortRange) bool { return r.First <= port && port <= r.Last })
}
