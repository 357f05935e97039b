package uplinks

import (
	"net/netip"
	"slices"
)

// NPTv6 is a prefix of the inside that is translated to one outside and back, one to one (RFC 6296).
type NPTv6 struct{ Inside, Outside netip.Prefix }

// addNPTv6 takes the prefixes that are wanted, which are of IPv6 alone.
func (s *side) addNPTv6(wanted []NPTv6) {
	if s.family == IPv6 {
		s.nptv6 = wanted
	}
}

// lostNPTv6 reports whether sessions may use a prefix that is no longer translated.
func (s *side) lostNPTv6() bool {
	return slices.ContainsFunc(s.heldNPTv6, func(n NPTv6) bool { return !slices.Contains(s.nptv6, n) })
}
