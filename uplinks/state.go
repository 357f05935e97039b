package uplinks

import (
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
	From   State  // "" for Appeared
	To     State
	Reason string // one clause for people
}

// refresh recomputes addresses, gateway and state of u from the view.
func (t *Tracker) refresh(now time.Time, u *tracked) []Event {
	old := *u
	u.refreshAddresses(t.view)
	u.refreshGateway(t.view)
	t.generations[u.id] = u.generation
	if u.link.Index != 0 {
		u.goneSince = time.Time{}
	} else if u.goneSince.IsZero() {
		u.goneSince = now
	}
	state, reason := t.judge(u)
	if state != u.state {
		u.since = now
	}
	u.state, u.reason = state, reason
	return changes(now, &old, u)
}

// refreshAddresses takes the pool of addresses and decides whether sessions survive. A link without any address decides
// nothing: what comes next does.
func (u *tracked) refreshAddresses(v *view) {
	u.addresses = nil
	if u.link.Index != 0 {
		u.addresses = v.pool(u.link.Index)
		if len(u.spec.Addresses) > 0 {
			u.addresses = u.spec.Addresses
		}
	}
	if len(u.addresses) == 0 {
		return
	}
	lost := slices.ContainsFunc(u.held, func(a netip.Addr) bool { return !slices.Contains(u.addresses, a) })
	if lost {
		u.generation++
		u.health, u.proven = Health{}, false
	}
	u.held = u.addresses
}

// refreshGateway takes the gateway and its MAC address. The last gateway is kept when the default route goes but the
// subnet stays, and the last MAC address while the kernel asks anew.
func (u *tracked) refreshGateway(v *view) {
	gateway := u.findGateway(v)
	if gateway != u.gateway {
		u.gateway, u.gatewayMAC = gateway, [6]byte{}
	}
	if n, ok := v.neighbours[neighbourKey{u.link.Index, gateway}]; ok && n.State&usableNeighbour != 0 && n.MAC != [6]byte{} {
		u.gatewayMAC = n.MAC
	}
}

func (u *tracked) findGateway(v *view) netip.Addr {
	r, hasDefault := v.defaults[u.link.Index]
	switch {
	case u.link.Index == 0 || u.link.HeaderLess:
		return netip.Addr{}
	case u.spec.Gateway.IsValid():
		return u.spec.Gateway
	case hasDefault && r.Gateway.IsValid():
		return r.Gateway
	case u.gateway.IsValid() && v.covered(u.link.Index, u.gateway):
		return u.gateway
	}
	return netip.Addr{}
}

// judge computes the state: what the user wants, then what the link lacks, then what the prober says.
func (t *Tracker) judge(u *tracked) (State, string) {
	switch {
	case u.leaving:
		return Disabled, "no longer configured, its sessions run out"
	case t.isDisabled(u):
		return Disabled, "switched off"
	}
	if lack := u.lacks(); lack != "" {
		return Down, lack
	}
	h := u.health
	if !h.Known && !t.cfg.AssumeHealthy {
		return Probing, "not probed yet"
	}
	if h.Known && !h.Usable && !t.cfg.AssumeHealthy {
		if h.Reason == "" {
			return Down, "probes fail"
		}
		return Down, h.Reason
	}
	if !u.link.HeaderLess && u.gatewayMAC == [6]byte{} {
		return Probing, "gateway " + u.gateway.String() + " has not answered ARP yet"
	}
	return Up, ""
}

func (t *Tracker) isDisabled(u *tracked) bool {
	if d, commanded := t.disabled[u.name]; commanded {
		return d
	}
	return u.spec.Disabled
}

// lacks names what keeps any packet from leaving by u, "" when nothing does.
func (u *tracked) lacks() string {
	switch {
	case u.link.Index == 0 && !u.seen:
		return "no such interface"
	case u.link.Index == 0:
		return "interface is gone"
	case !u.link.Up:
		return "interface is switched off"
	case !u.link.Carrier:
		return "no carrier"
	case len(u.addresses) == 0:
		return "no address"
	case !u.link.HeaderLess && !u.gateway.IsValid():
		return "no gateway"
	}
	return ""
}

// changes compares an uplink before and after a refresh.
func changes(now time.Time, old, u *tracked) []Event {
	event := func(kind EventKind, reason string) Event {
		return Event{Time: now, Kind: kind, ID: u.id, Uplink: u.name, From: old.state, To: u.state, Reason: reason}
	}
	if old.state == "" {
		return []Event{event(Appeared, u.reason)}
	}
	var events []Event
	// The link is matched before the refresh, so its loss shows in goneSince.
	if old.goneSince.IsZero() && !u.goneSince.IsZero() {
		events = append(events, event(Vanished, "interface "+u.iface+" is gone"))
	}
	if !slices.Equal(old.held, u.held) {
		events = append(events, event(AddressesChanged, join(u.addresses)))
	}
	if u.gateway.IsValid() && old.gateway.IsValid() && (u.gateway != old.gateway || old.gatewayMAC != [6]byte{} && u.gatewayMAC != old.gatewayMAC) {
		events = append(events, event(GatewayChanged, u.gateway.String()))
	}
	if u.state != old.state {
		events = append(events, event(StateChanged, u.reason))
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
