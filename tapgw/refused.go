package tapgw

import (
	"errors"
	"sync"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// Refusal is that new sessions of an inside host were refused, for people.
type Refusal struct {
	Reason Reason
	Inside packet.Addr // none where everybody is refused
	IPv6   bool
}

// Advice says in a clause what is wrong and what to do.
func (r Refusal) Advice() string {
	switch r.Reason {
	case TableFull:
		if r.IPv6 {
			return "the session table of IPv6 is full: raise nat.max_sessions_ipv6, or find out who opens so many"
		}
		return "the session table is full: raise nat.max_sessions, or find out who opens so many"
	case NoPort:
		return "no outside port, or for a protocol without ports no address, is free on any uplink: " +
			"widen nat.ports, add an address to an uplink, or find out who opens so many"
	case HostSessions:
		return "this host has its share of sessions: look at what it does, or raise nat.limits.sessions_per_host"
	case HostPorts:
		return "this host has its share of outside ports: look at what it does, or raise nat.limits.ports_per_host"
	case HostRate:
		return "this host opens sessions too fast: look at what it does, or raise nat.limits.new_per_second"
	default:
		return ""
	}
}

// maxRefusals bounds how many different ones are remembered until somebody asks.
const maxRefusals = 16

// refusals are the different ones since they were last taken.
type refusals struct {
	mu   sync.Mutex
	list [maxRefusals]Refusal
	n    int
}

// note remembers a refusal that somebody can do something about.
func (r *refusals) note(why Reason, inside packet.Addr) {
	n := Refusal{why, inside, !inside.Is4()}
	if n.Advice() == "" {
		return
	}
	if why == TableFull || why == NoPort {
		n.Inside = packet.Addr{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, known := range r.list[:r.n] {
		if known == n {
			return
		}
	}
	if r.n < maxRefusals {
		r.list[r.n] = n
		r.n++
	}
}

// TakeRefusals returns the different refusals since the last call, up to 16.
func (g *Gateway) TakeRefusals() []Refusal {
	r := &g.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	list := append([]Refusal(nil), r.list[:r.n]...)
	r.n = 0
	return list
}

// refusal names the drop that an error of nat.Open means.
func refusal(err error) Reason {
	switch {
	case err == nil:
		return NoReason
	case errors.Is(err, nat.ErrNoPort):
		return NoPort
	case errors.Is(err, nat.ErrHostSessions):
		return HostSessions
	case errors.Is(err, nat.ErrHostPorts):
		return HostPorts
	case errors.Is(err, nat.ErrHostRate):
		return HostRate
	default:
		return TableFull
	}
}
