// Package uplinks holds what an uplink (a way to the Internet) is: which ones exist, their addresses and gateways, state,
// measured load, and the routes and rules they need. It is pure: facts come in as values, time as an argument.
package uplinks

import (
	"net/netip"
	"time"

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
	State     State
	Reason    string    // why State is not Up, one clause for people
	Since     time.Time // of State
	// Unproven: the link lacks nothing, but no probe has succeeded under these addresses yet.
	Unproven bool

	Addresses  []netip.Addr // IPv4, never empty while usable
	Gateway    netip.Addr   // invalid on point-to-point links
	GatewayMAC [6]byte      // zero until resolved, and on header-less links
	MAC        [6]byte
	HeaderLess bool
	MTU        int

	CapacityUp, CapacityDown uint64 // bits per second, 0 unknown
	Weight                   int    // ≥ 1
	Tier                     int    // lower is preferred

	// Generation, from 1, changes whenever sessions made before can no longer work: an address they use was lost. While
	// there is no address at all the verdict waits, so that the same address after a re-dial or re-plug keeps them.
	Generation uint32
	Health     Health
}

// Ready reports whether packets can leave by u right now, whatever its health.
func (u *Uplink) Ready() bool {
	return u.Index != 0 && len(u.Addresses) > 0 && (u.HeaderLess || u.GatewayMAC != [6]byte{})
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
		for _, a := range u.Addresses {
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

// Owner returns the uplink that has addr as an address of its own, or nil.
func (s *Snapshot) Owner(addr netip.Addr) *Uplink { return s.owners[addr] }
