package configs

import (
	"net/netip"
	"slices"
)

// parseExempt reads a destination of either family: a prefix, or an address for one alone.
func parseExempt(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, alone := netip.ParseAddr(s); alone == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "":
		return p, faultf("write for example 10.8.0.0/16 or fd00:8::/32", "%s is not a prefix", quote(s))
	case p.Bits() == 0:
		return p, faultf("name the networks that can answer to private addresses", "%s is everything, and nothing would be translated", p)
	case p.Addr().Is4() && !usableAddr(p.Addr()), p.Addr().Is6() && slices.ContainsFunc(notUnicastV6, p.Overlaps):
		return p, faultf("name networks of hosts", "%s has none", p)
	case p != p.Masked():
		return p, faultf("write "+p.Masked().String(), "%s has bits beyond its length", p)
	}
	return p, nil
}
