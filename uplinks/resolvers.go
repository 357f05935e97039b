package uplinks

import (
	"net/netip"
	"slices"
)

// maxResolvers bounds how many resolvers an uplink has in a family.
const maxResolvers = 16

// public are resolvers that answer everybody, by whatever way they are asked: no ISP's own, though some ISPs tell their customers
// to use them.
var public = addresses(
	"1.1.1.1", "1.0.0.1", "1.1.1.2", "1.0.0.2", "1.1.1.3", "1.0.0.3", "2606:4700:4700::1111", "2606:4700:4700::1001",
	"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844",
	"9.9.9.9", "149.112.112.112", "9.9.9.10", "149.112.112.10", "9.9.9.11", "149.112.112.11", "2620:fe::fe", "2620:fe::9",
	"208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53",
	"94.140.14.14", "94.140.15.15", "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff",
	"4.2.2.1", "4.2.2.2", "64.6.64.6", "64.6.65.6", "77.88.8.8", "77.88.8.1", "223.5.5.5", "223.6.6.6", "119.29.29.29",
)

func addresses(list ...string) (all []netip.Addr) {
	for _, text := range list {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// ownResolvers are the resolvers of an uplink's ISP in a family: those that the configuration names, else those found out that are not
// everybody's.
func ownResolvers(configured, learned []netip.Addr, f Family) (list []netip.Addr) {
	found := configured
	if len(configured) == 0 {
		found = slices.DeleteFunc(slices.Clone(learned), func(a netip.Addr) bool { return slices.Contains(public, a) })
	}
	for _, a := range found {
		global := a.IsGlobalUnicast() && a.Zone() == ""
		if familyOf(a) == f && global && !slices.Contains(list, a) && len(list) < maxResolvers {
			list = append(list, a)
		}
	}
	return list
}
