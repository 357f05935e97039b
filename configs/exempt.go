package configs

import (
	"net/netip"
	"slices"
)

// parseExempt reads a destination of either family: a prefix, or an address for one alone.
func parseExempt(s string) (netip.Prefix, error) {
	p, err := parsePrefix(s)
	switch {
	case err != nil:
		return p, err
	case p.Bits() == 0:
		return p, faultf("name the networks that can answer to private addresses", "%s is everything, and nothing would be translated", p)
	case p.Addr().Is4() && !usableAddr(p.Addr()), p.Addr().Is6() && slices.ContainsFunc(notUnicastV6, p.Overlaps):
		return p, faultf("name networks of hosts", "%s has none", p)
	}
	return p, nil
}
