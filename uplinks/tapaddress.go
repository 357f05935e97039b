package uplinks

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

const (
	// maxEarlier bounds how many addresses are kept for the connections that have them.
	maxEarlier = 4
	// interfaceIDBits is how long the part of an address is that is ours to choose (RFC 4291 §2.5.1).
	interfaceIDBits = 64
)

// TapAddresses are the host's IPv6 addresses on the TAP. The current one lies in the /64 of an uplink's address, because hosts
// prefer IPv4 to a local source (RFC 6724 §2.1), and an uplink's own address would look as if it were bound to that uplink.
type TapAddresses struct {
	Current netip.Addr   // for new connections; invalid while no uplink has IPv6
	Earlier []netip.Addr // those before, the latest first, which connections may still have
}

// Follow returns the addresses for what the uplinks have now: the same as long as the prefix lasts, then an earlier one or a
// new one, of a usable uplink if there is one, and of a local prefix (RFC 4193) only where there is no other. Its interface
// identifier is random, and neither it nor the one with the last bit flipped, from which errors come, is anybody's in f.
func (t TapAddresses) Follow(s *Snapshot, f Facts, random func() uint64) TapAddresses {
	prefixes := tapPrefixes(s)
	fits := func(a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if len(prefixes) == 0 && !t.Current.IsValid() || t.Current.IsValid() && fits(t.Current) {
		return t
	}
	var next TapAddresses
	if len(prefixes) > 0 {
		if i := slices.IndexFunc(t.Earlier, fits); i >= 0 {
			next.Current = t.Earlier[i]
		} else {
			next.Current = newTapAddress(prefixes[0], addressesOfOthers(s, f), random())
		}
	}
	for _, a := range append([]netip.Addr{t.Current}, t.Earlier...) {
		if a.IsValid() && a != next.Current && len(next.Earlier) < maxEarlier {
			next.Earlier = append(next.Earlier, a)
		}
	}
	return next
}

// tapPrefixes are those that an address on the TAP may have, the best first.
func tapPrefixes(s *Snapshot) (prefixes []netip.Prefix) {
	var pool []netip.Addr
	for _, usable := range []bool{true, false} {
		for _, u := range s.Uplinks {
			if u.hasIPv6() && u.V6.State.Usable() == usable {
				for _, a := range u.V6.Pool() {
					pool = append(pool, a.Netip())
				}
			}
		}
	}
	for _, a := range preferPublic(pool) {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()-interfaceIDBits).Masked())
	}
	return prefixes
}

// hasIPv6 reports whether u leads to the Internet by IPv6. Many a link has addresses of the family but no router.
func (u *Uplink) hasIPv6() bool {
	return u.Index != 0 && len(u.V6.Addresses) > 0 && (u.HeaderLess || u.V6.Gateway.IsValid())
}

func addressesOfOthers(s *Snapshot, f Facts) map[netip.Addr]bool {
	taken := make(map[netip.Addr]bool)
	for _, u := range s.Uplinks {
		for _, a := range u.V6.Addresses {
			taken[a] = true
		}
	}
	for _, a := range f.V6.Addresses {
		taken[a.Prefix.Addr()], taken[a.Peer] = true, true
	}
	for _, r := range f.V6.Routes {
		taken[r.Gateway] = true
	}
	for _, n := range f.V6.Neighbours {
		taken[n.Addr] = true
	}
	return taken
}

// newTapAddress is an address of p with the interface identifier id, or with one of the next where that is taken.
func newTapAddress(p netip.Prefix, taken map[netip.Addr]bool, id uint64) netip.Addr {
	for ; ; id += 2 {
		a, flipped := withInterfaceID(p, id), withInterfaceID(p, id^1)
		if !reservedInterfaceID(id) && !taken[a] && !taken[flipped] {
			return a
		}
	}
}

func withInterfaceID(p netip.Prefix, id uint64) netip.Addr {
	b := p.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], id)
	return netip.AddrFrom16(b)
}

// reservedInterfaceID reports whether routers answer to id in every subnet (RFC 5453), or mostly, as to 1.
func reservedInterfaceID(id uint64) bool {
	const firstAnycast, lastAnycast = 0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff
	return id <= 1 || id >= firstAnycast && id <= lastAnycast
}
