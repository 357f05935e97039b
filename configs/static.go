package configs

import (
	"net/netip"
	"slices"
	"strings"
)

// parseStatic reads inside=outside.
func parseStatic(s string) (Static, error) {
	inside, outside, found := strings.Cut(s, "=")
	if !found {
		return Static{}, faultf("write for example 192.168.1.10=203.0.113.7, the inside host first", "%s is not two addresses", quote(s))
	}
	in, err := parseAddr(strings.TrimSpace(inside))
	if err != nil {
		return Static{}, err
	}
	out, err := parseAddr(strings.TrimSpace(outside))
	return Static{in, out}, err
}

// String is the mapping as the file has it.
func (s Static) String() string { return s.Inside.String() + "=" + s.Outside.String() }

// checkStatic makes an uplink's static mappings one to one, and leaves an address to the others.
func (l *loader) checkStatic(u Uplink, path string) {
	key := path + ".static"
	if !l.sound(key) {
		return
	}
	for i, s := range u.Static {
		where, before := index(key, i), u.Static[:i]
		switch {
		case slices.ContainsFunc(before, func(o Static) bool { return o.Outside == s.Outside }):
			l.refuse(where, "give each inside host an address of its own", "%s is another host's already", s.Outside)
		case slices.ContainsFunc(before, func(o Static) bool { return o.Inside == s.Inside }):
			l.refuse(where, "keep one", "%s has an address on this uplink already", s.Inside)
		case slices.ContainsFunc(u.Static, func(o Static) bool { return o.Outside == s.Inside }):
			l.refuse(where, "write the inside host first, as 192.168.1.10=203.0.113.7", "%s is an outside address", s.Inside)
		case s.Outside == u.Gateway:
			l.refuse(where, "write an address of this host", "%s is the gateway", s.Outside)
		case l.sound("tap.address") && (l.config.TAP.Address.Contains(s.Inside) || l.config.TAP.Address.Contains(s.Outside)):
			l.refuse(where, "name a host of the LAN, and an address of the uplink", "%s lies in the gateway's own subnet", s)
		}
	}
	others := func(a netip.Addr) bool {
		return !slices.ContainsFunc(u.Static, func(s Static) bool { return s.Outside == a })
	}
	if l.sound(path+".addresses") && len(u.Addresses) > 0 && !slices.ContainsFunc(u.Addresses, others) {
		l.refuse(key, "leave one of addresses to all others, and to the probes", "every address of the uplink is one host's alone")
	}
}
