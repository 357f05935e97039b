// Package uplinks holds what an uplink (a way to the Internet) is: which ones exist, their addresses and gateways, state,
// measured load, and the routes and rules they need. It is pure: facts come in as values, time as an argument.
package uplinks

import (
	"net/netip"
	"slices"

	"tapgw/internal/packet"
)

// MaxUplinks bounds uplink IDs (0 … MaxUplinks-1), so that tables may be plain arrays. Devices beyond it are not used.
const MaxUplinks = 32

// State is the condition of an uplink; its text form is part of the API.
type State string

// The states. Only Up and Degraded carry new sessions.
const (
	Probing  State = "probing"
	Up       State = "up"
	Degraded State = "degraded"
	Portal   State = "portal"
	Down     State = "down"
	Disabled State = "disabled"
)

// Usable reports whether new sessions may be bound to an uplink in this state.
func (s State) Usable() bool { return s == Up || s == Degraded }

// Uplink is one uplink at one moment. Values are immutable once published in a Snapshot.
type Uplink struct {
	ID        uint8 // stable for the life of the daemon; index of all per-uplink tables
	Name      string
	Interface string
	Index     int // of the interface, 0 while it is gone

	Side      // to IPv4
	V6   Side // to IPv6

	MAC        [6]byte
	HeaderLess bool
	MTU        int

	CapacityUp, CapacityDown uint64 // bits per second, 0 unknown
	Weight                   int    // ≥ 1
	Tier                     int    // lower is preferred
	Preferred                bool   // by command: before all tiers
	Metered                  bool   // its data cost money
	MeteredByCommand         bool   // Metered is not what the configuration says
	OnRecover                OnRecover
}

// Rank orders uplinks for new sessions, the lowest first.
func (u *Uplink) Rank() int {
	if u.Preferred {
		return -1
	}
	return u.Tier
}

// On returns what u is to a family.
func (u *Uplink) On(f Family) *Side {
	if f == IPv6 {
		return &u.V6
	}
	return &u.Side
}

// Ready reports whether IPv4 packets can leave by u right now, whatever its health.
func (u *Uplink) Ready() bool { return u.ReadyFor(IPv4) }

// ReadyFor is Ready for any family.
func (u *Uplink) ReadyFor(f Family) bool {
	s := u.On(f)
	return u.Index != 0 && len(s.Addresses) > 0 && (u.HeaderLess || s.GatewayMAC != [6]byte{})
}

// Outside returns the addresses of u as headers are decoded.
func (u *Uplink) Outside() (list []packet.Addr) {
	for _, a := range u.Addresses {
		list = append(list, packet.AddrOf(a))
	}
	return list
}

// Snapshot is the whole set of uplinks at one moment, shared read-only between goroutines.
type Snapshot struct {
	Uplinks []*Uplink // in order of ID; IDs may have gaps
	byID    [MaxUplinks]*Uplink
	owners  map[netip.Addr]*Uplink
}

// NewSnapshot indexes list, which must not be changed afterwards.
func NewSnapshot(list []*Uplink) *Snapshot {
	s := &Snapshot{Uplinks: list, owners: make(map[netip.Addr]*Uplink)}
	for _, u := range list {
		s.byID[u.ID] = u
		for _, a := range slices.Concat(u.Addresses, u.V6.Addresses) {
			if _, taken := s.owners[a]; !taken {
				s.owners[a] = u
			}
		}
	}
	return s
}

// ByID returns the uplink with that ID, or nil.
func (s *Snapshot) ByID(id uint8) *Uplink {
	if int(id) >= len(s.byID) {
		return nil
	}
	return s.byID[id]
}

// For returns the uplinks as they are to a family: of IPv6 the Side that each embeds is its V6.
func (s *Snapshot) For(f Family) *Snapshot {
	if f == IPv4 {
		return s
	}
	var list []*Uplink
	for _, u := range s.Uplinks {
		v6 := *u
		v6.Side = u.V6
		list = append(list, &v6)
	}
	return NewSnapshot(list)
}

// Owner returns the uplink that has addr as an address of its own, or nil.
func (s *Snapshot) Owner(addr netip.Addr) *Uplink { return s.owners[addr] }
