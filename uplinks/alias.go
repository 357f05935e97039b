package uplinks

import (
	"net/netip"
	"slices"
)

// withoutAliases leaves out of a pool of IPv4 the private addresses (RFC 1918) in whose subnet neither the gateway nor the default
// route's source lies, unless there are no others. People add them to reach what is on the uplink's cable, as the page of a
// modem, and nobody in the Internet answers to them.
func (v *view) withoutAliases(index int, pool []netip.Addr, gateway, source netip.Addr) []netip.Addr {
	if !gateway.IsValid() {
		return pool
	}
	used := make(map[netip.Addr]bool)
	for _, a := range v.addresses[index] {
		subnet := onLinkPrefix(a)
		used[a.Prefix.Addr()] = used[a.Prefix.Addr()] || subnet.Contains(gateway) || subnet.Contains(source)
	}
	isAlias := func(a netip.Addr) bool { return a.Is4() && a.IsPrivate() && !used[a] }
	if kept := slices.DeleteFunc(slices.Clone(pool), isAlias); len(kept) > 0 {
		return kept
	}
	return pool
}
