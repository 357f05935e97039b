package nft

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

func uplinkSet(t table, uplinks []Uplink) set {
	var list []string
	for _, u := range uplinks {
		list = append(list, u.Name)
	}
	return names(t, setUplinks, list...)
}

// names is a set of those interface names that are not empty.
func names(t table, name string, list ...string) set {
	s := set{table: t, name: name, keyType: typeIfname}
	for _, n := range list {
		if n != "" {
			s.keys = append(s.keys, key{data: ifname(n)})
		}
	}
	return s
}

func ifname(name string) []byte {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return data
}

// addressSet is those addresses of a list that are of a family.
func addressSet(t table, f family, name string, list []netip.Addr) set {
	s := set{table: t, name: f.of(name), keyType: f.keyType}
	addresses := slices.SortedFunc(slices.Values(list), netip.Addr.Compare)
	for _, a := range slices.Compact(addresses) {
		if f.has(a) {
			s.keys = append(s.keys, key{data: a.AsSlice()})
		}
	}
	return s
}

// outsideSet is the addresses of all uplinks.
func outsideSet(t table, f family, uplinks []Uplink) set {
	return addressSet(t, f, setOutside, collect(uplinks, func(u Uplink) []netip.Addr { return u.Addresses }))
}

// wholeSet is those of the addresses that are one inside host's each.
func wholeSet(t table, f family, uplinks []Uplink) set {
	return addressSet(t, f, setWhole, collect(uplinks, func(u Uplink) []netip.Addr { return u.Whole }))
}

// insideSet is these hosts.
func insideSet(t table, f family, uplinks []Uplink) set {
	return addressSet(t, f, setInsides, collect(uplinks, func(u Uplink) []netip.Addr { return u.Insides }))
}

func collect(uplinks []Uplink, of func(Uplink) []netip.Addr) (list []netip.Addr) {
	for _, u := range uplinks {
		list = append(list, of(u)...)
	}
	return list
}

func transportSet(t table) set { return protocols(t, setTransport, unix.IPPROTO_TCP, unix.IPPROTO_UDP) }

// pieceSets are what the matches of f look into that need not look at ports: the protocols of whose packets fragments are hidden,
// beside those that are hidden whole, or extension headers, and what discovers neighbours.
func (f family) pieceSets(t table) []set {
	if f.proto == unix.NFPROTO_IPV4 {
		return []set{protocols(t, setFragments, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP)}
	}
	discovery := bytesSet(t, setDiscovery, typeICMPv6, packet.ICMPv6Listener)
	for kind := byte(packet.ICMPv6FirstLocal); kind <= packet.ICMPv6LastLocal; kind++ {
		discovery.keys = append(discovery.keys, key{data: []byte{kind}})
	}
	return []set{
		protocols(t, setExtensions, unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS), discovery,
	}
}

func notHiddenSet(t table, f family) set { return protocols(t, f.of(setNotHidden), f.hostsOwn...) }

func errorSet(t table, f family) set {
	return bytesSet(t, f.of(setErrors), f.icmpType, f.icmpErrors...)
}

func protocols(t table, name string, numbers ...byte) set {
	return bytesSet(t, name, typeProto, numbers...)
}

func bytesSet(t table, name string, keyType uint32, values ...byte) set {
	s := set{table: t, name: name, keyType: keyType}
	for _, v := range values {
		s.keys = append(s.keys, key{data: []byte{v}})
	}
	return s
}

func portSet(t table, ports []PortRange) set {
	s := set{table: t, name: setPorts, keyType: typeService, interval: true}
	for _, r := range ports {
		s.keys = append(s.keys, key{data: port(r.First)})
		if r.Last < 65535 { // the interval that reaches the end of the number space has no end element
			s.keys = append(s.keys, key{data: port(r.Last + 1), end: true})
		}
	}
	return s
}

// exemptSet is those of the prefixes that are of a family as intervals, of which those that touch or overlap are one.
func exemptSet(t table, f family, name string, prefixes []netip.Prefix) set {
	s := set{table: t, name: f.of(name), keyType: f.keyType, interval: true}
	sorted := slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var covered netip.Prefix
	for _, p := range sorted {
		if !f.has(p.Addr()) || covered.IsValid() && covered.Overlaps(p) {
			continue // the wider one came first
		}
		covered = p
		start := p.Addr().AsSlice()
		if last := len(s.keys) - 1; last > 0 && slices.Equal(s.keys[last].data, start) {
			s.keys = s.keys[:last] // the interval before goes on
		} else {
			s.keys = append(s.keys, key{data: start})
		}
		if end := behind(p); end.IsValid() { // else it reaches the end of the number space
			s.keys = append(s.keys, key{data: end.AsSlice(), end: true})
		}
	}
	return s
}

// behind is the first address behind a prefix, invalid when there is none.
func behind(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

func port(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
