package nat

import (
	"errors"
	"time"

	"tapgw/internal/packet"
)

// Limits bound what one inside host may take from the others (RFC 6888 REQ-4 and REQ-5); 0 is no limit. Sessions that move
// to another uplink count on and are never refused.
type Limits struct {
	Sessions  int         // live ones
	Ports     int         // outside ports and ICMP identifiers, of all protocols and uplinks together
	PerSecond int         // new sessions, as many of which may come at once
	Exempt    packet.Addr // inside address without limits
}

// What Open refuses an inside host beyond its Limits.
var (
	ErrHostSessions = errors.New("nat: this inside host has its share of sessions, raise nat.limits.sessions_per_host")
	ErrHostPorts    = errors.New("nat: this inside host has its share of outside ports, raise nat.limits.ports_per_host")
	ErrHostRate     = errors.New("nat: this inside host opens sessions too fast, raise nat.limits.new_per_second")
)

// usage is what an inside host has now. It is kept for as long as that is anything, so there are at most as many as sessions.
type usage struct {
	sessions, ports uint32
	at              Tick
	spent           time.Duration // of the second in which Limits.PerSecond sessions may come, as of at
}

// SetLimits changes the limits for sessions from now on.
func (t *Table) SetLimits(l Limits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = l
}

// admit reports whether an inside host may have one more session.
func (t *Table) admit(inside packet.Addr, now Tick) error {
	l, u := &t.limits, t.hosts[inside]
	switch {
	case inside == l.Exempt:
		return nil
	case l.Sessions > 0 && int(u.sessions) >= l.Sessions:
		return ErrHostSessions
	case l.PerSecond > 0 && u.spentAt(now)+time.Second/time.Duration(l.PerSecond) > time.Second:
		return ErrHostRate
	}
	return nil
}

// admitPort reports whether an inside host may have one more outside port.
func (t *Table) admitPort(inside packet.Addr) error {
	if l := &t.limits; inside != l.Exempt && l.Ports > 0 && int(t.hosts[inside].ports) >= l.Ports {
		return ErrHostPorts
	}
	return nil
}

// spentAt is what is left of u.spent by now.
func (u *usage) spentAt(now Tick) time.Duration {
	return max(0, u.spent-max(0, u.at.Since(now)))
}

// countOpened notes a session that was admitted.
func (t *Table) countOpened(inside packet.Addr, now Tick) {
	u := t.hosts[inside]
	u.sessions++
	u.spent, u.at = u.spentAt(now), now
	if n := t.limits.PerSecond; n > 0 {
		u.spent += time.Second / time.Duration(n)
	}
	t.hosts[inside] = u
}

// charge notes how many sessions and outside ports an inside host has more, or fewer.
func (t *Table) charge(inside packet.Addr, sessions, ports int) {
	u := t.hosts[inside]
	u.sessions, u.ports = u.sessions+uint32(sessions), u.ports+uint32(ports)
	if u.sessions == 0 && u.ports == 0 {
		delete(t.hosts, inside)
		return
	}
	t.hosts[inside] = u
}
