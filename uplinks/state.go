package uplinks

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// EventKind says what an Event is about; its text form is part of the API.
type EventKind string

// The kinds of events.
const (
	Appeared         EventKind = "appeared"          // the uplink became known; To is its first state
	Vanished         EventKind = "vanished"          // its interface is gone, or it left the configuration
	StateChanged     EventKind = "state"             // From and To differ
	AddressesChanged EventKind = "addresses-changed" // Reason lists the new ones
	GatewayChanged   EventKind = "gateway-changed"   // Reason names the new one
)

// Event is one change worth telling.
type Event struct {
	Time   time.Time
	Kind   EventKind
	ID     uint8
	Uplink string // name
	Family Family // that is concerned; of Appeared and Vanished always IPv4
	From   State  // "" for Appeared
	To     State
	Reason string // one clause for people
}

// refresh recomputes addresses, gateways and states of u from the views.
func (t *Tracker) refresh(now time.Time, u *tracked) (events []Event) {
	left := u.goneSince.IsZero() && u.link.Index == 0
	if u.link.Index != 0 {
		u.goneSince = time.Time{}
	} else if left {
		u.goneSince = now
	}
	for f := range u.sides {
		s := &u.sides[f]
		old := *s
		s.refresh(u, t.views[f])
		t.generations[f][u.id] = s.generation
		state, reason := t.judge(u, s)
		s.damping.follow(now, s.state, state, t.cfg.Flapping)
		if doubt := s.damping.doubt(now, t.cfg.Flapping); state == Up && doubt != "" {
			state, reason = Degraded, doubt
		}
		if state != s.state {
			s.since = now
		}
		s.state, s.reason = state, reason
		events = append(events, u.changes(now, &old, s, left)...)
	}
	return events
}

// judge computes the state: what the user wants, then what the link lacks, then what the prober says.
func (t *Tracker) judge(u *tracked, s *side) (State, string) {
	switch {
	case s.family == IPv6 && s.held == nil:
		return "", ""
	case u.leaving:
		return Disabled, "no longer configured, its sessions run out"
	case t.isDisabled(u):
		return Disabled, "switched off"
	case t.stopped[u.name] != "":
		return Disabled, t.stopped[u.name]
	}
	if lack := s.lacks(u); lack != "" {
		return Down, lack
	}
	h, assumed := s.health, t.cfg.AssumeHealthy
	if s.family == IPv6 {
		assumed = t.cfg.AssumeHealthyV6
	}
	if !h.Known && !assumed {
		return Probing, "not probed yet"
	}
	if h.Known && !h.Usable && !assumed {
		if h.Reason == "" {
			return Down, "probes fail"
		}
		return Down, h.Reason
	}
	if !u.link.HeaderLess && s.gatewayMAC == [6]byte{} {
		return Probing, "gateway " + s.gateway.String() + " has not answered " + s.family.resolution() + " yet"
	}
	switch {
	case h.Known && h.Portal != "":
		return Portal, h.Reason
	case h.Known && h.Degraded:
		return Degraded, h.Reason
	}
	return Up, ""
}

func (t *Tracker) isDisabled(u *tracked) bool {
	if d, commanded := t.commands.disabled[u.name]; commanded {
		return d
	}
	return u.spec.Disabled
}

// resolution is how the MAC address of a neighbour is found.
func (f Family) resolution() string {
	if f == IPv6 {
		return "neighbour discovery"
	}
	return "ARP"
}

// changes compares a side before and after a refresh; left says that the interface has just gone.
func (u *tracked) changes(now time.Time, old, s *side, left bool) []Event {
	event := func(kind EventKind, reason string) Event {
		return Event{Time: now, Kind: kind, ID: u.id, Uplink: u.name, Family: s.family, From: old.state, To: s.state, Reason: reason}
	}
	if old.state == "" && s.family == IPv4 {
		return []Event{event(Appeared, s.reason)}
	}
	if old.state == "" && s.state != "" {
		return []Event{event(StateChanged, s.reason)}
	}
	var events []Event
	if left && s.family == IPv4 {
		events = append(events, event(Vanished, "interface "+u.iface+" is gone"))
	}
	if !slices.Equal(old.held, s.held) {
		events = append(events, event(AddressesChanged, join(s.addresses)))
	}
	moved := old.gatewayMAC != [6]byte{} && s.gatewayMAC != old.gatewayMAC
	if s.gateway.IsValid() && old.gateway.IsValid() && (s.gateway != old.gateway || moved) {
		events = append(events, event(GatewayChanged, s.whereGateway()))
	}
	if s.state != old.state {
		events = append(events, event(StateChanged, s.reason))
	}
	return events
}

func join(addrs []netip.Addr) string {
	s := ""
	for i, a := range addrs {
		if i > 0 {
			s += ", "
		}
		s += a.String()
	}
	return s
}

// whereGateway is the gateway with its MAC address, once that is known: who claims to be it can be told.
func (s *side) whereGateway() string {
	if s.gatewayMAC == [6]byte{} {
		return s.gateway.String()
	}
	return s.gateway.String() + " at " + net.HardwareAddr(s.gatewayMAC[:]).String()
}
