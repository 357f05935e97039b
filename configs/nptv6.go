package configs

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Limits of NPTv6.
const (
	maxNPTv6     = 24  // pairs of all uplinks: what is received is compared with each
	longestNPTv6 = 112 // bits of a prefix: one word is left to be adjusted (RFC 6296 §3.5)
)

// notUnicastV6 are prefixes that no host on the Internet has an address in (RFC 4291 §2.4).
var notUnicastV6 = []netip.Prefix{netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/8")}

// parseNPTv6 reads inside=outside.
func parseNPTv6(s string) (NPTv6, error) {
	inside, outside, found := strings.Cut(s, "=")
	if !found {
		return NPTv6{}, faultf("write for example fd00:1::/48=2001:db8:100::/48, the inside first", "%s is not two prefixes", quote(s))
	}
	in, err := parsePrefixV6(strings.TrimSpace(inside))
	if err != nil {
		return NPTv6{}, err
	}
	out, err := parsePrefixV6(strings.TrimSpace(outside))
	return NPTv6{in, out}, err
}

func parsePrefixV6(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is6() || p.Addr().Is4In6():
		return p, faultf("write for example fd00:1::/48", "%s is not an IPv6 prefix", quote(s))
	case p != p.Masked():
		return p, faultf("write "+p.Masked().String(), "%s has bits beyond its length", p)
	case p.Bits() > longestNPTv6:
		return p, faultf("use /"+strconv.Itoa(longestNPTv6)+" or shorter", "%s leaves nothing to adjust", p)
	case slices.ContainsFunc(notUnicastV6, p.Overlaps):
		return p, faultf("name a prefix of hosts, as fd00:1::/48", "%s holds addresses of no host", p)
	}
	return p, nil
}

// String is the pair as the file has it.
func (n NPTv6) String() string { return n.Inside.String() + "=" + n.Outside.String() }

// checkNPTv6 makes the translation of every address unambiguous.
func (l *loader) checkNPTv6(u Uplink, path string) {
	key := path + ".nptv6"
	if !l.sound(key) {
		return
	}
	for i, n := range u.NPTv6 {
		where := index(key, i)
		if slices.ContainsFunc(u.NPTv6[:i], func(o NPTv6) bool { return o.Inside.Overlaps(n.Inside) }) {
			l.refuse(where, "keep one for each host", "%s is translated on this uplink already", n.Inside)
		}
		if slices.ContainsFunc(u.NPTv6, func(o NPTv6) bool { return o.Outside.Overlaps(n.Inside) && o.Inside != o.Outside }) {
			l.refuse(where, "write the inside first, as fd00:1::/48=2001:db8:100::/48", "%s is outside on this uplink", n.Inside)
		}
		if n.Inside.Bits() < n.Outside.Bits() {
			l.warn(where, "get a prefix outside that is as large", "%s has room for %s alone; other hosts share the uplink's own address",
				n.Outside, netip.PrefixFrom(n.Inside.Addr(), n.Outside.Bits()))
		}
	}
}

// checkOutsides keeps the prefixes outside apart; uplinks may have the very same, as one of the user's own is routed by each.
func (l *loader) checkOutsides() {
	type placed struct {
		NPTv6
		uplink int
	}
	var all []placed
	for i, u := range l.config.Uplinks {
		key := index(uplinksKey, i) + ".nptv6"
		if !l.sound(key) {
			continue
		}
		for j, n := range u.NPTv6 {
			other := func(o placed) bool { return o.Outside.Overlaps(n.Outside) && (o.NPTv6 != n || o.uplink == i) }
			if at := slices.IndexFunc(all, other); at >= 0 {
				l.refuse(index(key, j), "give each a prefix of its own", "%s and %s overlap", all[at].Outside, n.Outside)
			}
			all = append(all, placed{n, i})
		}
		if len(all) > maxNPTv6 {
			l.refuse(key, "join neighbouring prefixes", "more than %d pairs of prefixes", maxNPTv6)
			return
		}
	}
}
