package uplinks

import (
	"net/netip"
	"slices"
)

// NPTv6 is a prefix of the inside that is translated to one outside and back, one to one (RFC 6296).
type NPTv6 struct{ Inside, Outside netip.Prefix }

// addNPTv6 takes the prefixes that are wanted, which are of IPv6 alone. The shorter one of two is extended by zeros to the length
// of the other (RFC 6296 §3.1): the rest of it has nothing to do with the translation.
func (s *side) addNPTv6(wanted []NPTv6) {
	s.nptv6 = nil
	if s.family != IPv6 {
		return
	}
	for _, n := range wanted {
		length := max(n.Inside.Bits(), n.Outside.Bits())
		s.nptv6 = append(s.nptv6, NPTv6{netip.PrefixFrom(n.Inside.Addr(), length), netip.PrefixFrom(n.Outside.Addr(), length)})
	}
}

// lostNPTv6 reports whether sessions may use a prefix that is no longer translated.
func (s *side) lostNPTv6() bool {
	return slices.ContainsFunc(s.heldNPTv6, func(n NPTv6) bool { return !slices.Contains(s.nptv6, n) })
}

// Prefixes returns the prefixes outside of all uplinks, each once.
func (s *Snapshot) Prefixes() (list []netip.Prefix) {
	for _, u := range s.Uplinks {
		for _, n := range u.V6.NPTv6 {
			if !slices.Contains(list, n.Outside) {
				list = append(list, n.Outside)
			}
		}
	}
	return list
}
