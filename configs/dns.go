package configs

import (
	"net/netip"
	"slices"
)

// maxDNS bounds the resolvers of an uplink.
const maxDNS = 16

// parseResolver reads the address of an ISP's resolver, of either family.
func parseResolver(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, faultf("write for example 192.0.2.53", "%s is no address", quote(s))
	}
	if a = a.Unmap(); !a.IsGlobalUnicast() {
		return a, faultf("write the address of the ISP's resolver", "%s is this host's own, or nobody's", a)
	}
	return a, nil
}

// checkDNS keeps the list of an uplink's resolvers short.
func (l *loader) checkDNS(u Uplink, path string) {
	key := path + ".dns"
	if !l.sound(key) {
		return
	}
	if len(u.DNS) > maxDNS {
		l.refuse(key, "keep the first few", "%d resolvers are too many", len(u.DNS))
	}
	for i, a := range u.DNS {
		if slices.Contains(u.DNS[:i], a) {
			l.refuse(index(key, i), "keep one", "%s is listed twice", a)
		}
	}
}
