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

// questionPorts are where resolvers are asked: in the clear, and by TLS or QUIC.
var questionPorts = [...]uint16{53, 853}

// captureQuestions leads into the TAP what is asked of resolvers on the link of an uplink that does not work, which else never comes
// there, so that the gateway refuses it or has another uplink ask. Sockets that are bound to the link still find it, and so does
// everybody once the TAP is gone.
func (w *Wanted) captureQuestions(v *view, s *Snapshot, f Family, into Route) {
	dead := v.deadResolvers(s, f)
	for _, a := range dead {
		for _, port := range questionPorts {
			w.Rules = append(w.Rules, Rule{Priority: ResolverRule, Source: f.everywhere(), Destination: a, Port: port, Table: ResolverTable})
		}
	}
	if len(dead) > 0 {
		into.Table, into.Dst, into.Protocol = ResolverTable, f.everywhere(), Protocol
		w.Routes = append(w.Routes, into)
	}
}

// deadResolvers are those on the links of uplinks that do not work, if one that does has any.
func (v *view) deadResolvers(s *Snapshot, f Family) (list []netip.Addr) {
	answered := false
	for _, u := range s.Uplinks {
		on := u.On(f)
		answered = answered || on.State.Usable() && len(on.Resolvers) > 0
		for _, a := range on.Resolvers {
			if !on.State.Usable() && v.covered(u.Index, a) && !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	if !answered {
		return nil
	}
	return list
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
