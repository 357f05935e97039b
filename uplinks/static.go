package uplinks

import (
	"net/netip"
	"slices"

	"tapgw/internal/packet"
)

// Static is a one-to-one mapping of an inside host (RFC 3022 §2.1).
type Static struct{ Inside, Outside netip.Addr }

// Pool returns the addresses that inside hosts share for new sessions.
func (s *Side) Pool() (list []packet.Addr) {
	return s.shared(func(a netip.Addr) bool { return !slices.Contains(s.Retired, a) })
}

// Shared returns the addresses that sessions of several inside hosts may use: those of Pool, and retired ones.
func (s *Side) Shared() (list []packet.Addr) { return s.shared(func(netip.Addr) bool { return true }) }

func (s *Side) shared(fits func(netip.Addr) bool) (list []packet.Addr) {
	for _, a := range s.Addresses {
		if !isStatic(s.Static, a) && fits(a) {
			list = append(list, packet.AddrOf(a))
		}
	}
	return list
}

// Whole returns the addresses that are one inside host's each, with all ports and protocols.
func (s *Side) Whole() (list []netip.Addr) {
	for _, one := range s.Static {
		list = append(list, one.Outside)
	}
	return list
}

// Insides returns the inside hosts that have such an address.
func (s *Side) Insides() (list []netip.Addr) {
	for _, one := range s.Static {
		list = append(list, one.Inside)
	}
	return list
}

func isStatic(list []Static, outside netip.Addr) bool {
	return slices.ContainsFunc(list, func(s Static) bool { return s.Outside == outside })
}

// addStatic puts the outside addresses of static mappings behind the others. The first one stays everybody's, as the probes
// need it.
func (s *side) addStatic(wanted []Static) {
	s.static = nil
	if len(s.addresses) == 0 {
		return
	}
	first := slices.IndexFunc(s.addresses, func(a netip.Addr) bool { return !isStatic(wanted, a) })
	kept := s.addresses[max(first, 0)]
	for _, one := range wanted {
		if one.Outside != kept && familyOf(one.Outside) == s.family {
			s.static = append(s.static, one)
		}
	}
	s.addresses = slices.DeleteFunc(slices.Clone(s.addresses), func(a netip.Addr) bool { return isStatic(s.static, a) })
	for _, one := range s.static {
		s.addresses = append(s.addresses, one.Outside)
	}
}
