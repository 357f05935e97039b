package configs

import "net/netip"

// parseExempt reads an IPv4 destination: a prefix, or an address for one alone.
func parseExempt(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, alone := netip.ParseAddr(s); alone == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || !p.Addr().Is4():
		return p, faultf("write for example 10.8.0.0/16", "%s is not an IPv4 prefix", quote(s))
	case p.Bits() == 0:
		return p, faultf("name the networks that can answer to private addresses", "%s is everything, and nothing would be translated", p)
	case !usableAddr(p.Addr()):
		return p, faultf("name networks of hosts", "%s has none", p)
	case p != p.Masked():
		return p, faultf("write "+p.Masked().String(), "%s has bits beyond its length", p)
	}
	return p, nil
}
