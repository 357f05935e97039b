package uplinks

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"tapgw/internal/packet"
)

// Hop is where packets to a part of the LAN go next.
type Hop struct {
	Index   int        // of the link
	Gateway netip.Addr // invalid when the destination is on the link
}

// Ways tells by which hop an address of the LAN is reached, as the routing table does.
type Ways struct {
	Hops  []Hop
	parts []part // longest prefix first
}

// part is a subnet and the number of its hop: 0 for one that is not reached by a link of the LAN.
type part struct {
	first, mask packet.Addr
	hop         uint8
}

func (p *part) has(a packet.Addr) bool {
	return a.Hi&p.mask.Hi == p.first.Hi && a.Lo&p.mask.Lo == p.first.Lo
}

// maskOf is ones for the prefix, as addresses are decoded.
func maskOf(p netip.Prefix) packet.Addr {
	beyond := p.Addr().BitLen() - p.Bits()
	return packet.Addr{Hi: ^uint64(0) << max(0, beyond-64), Lo: ^uint64(0) << min(64, beyond)}
}

// maxHops is how many there can be, as sessions have eight bits for theirs, and 255 is nat.HopDevice.
const maxHops = 254

// FindWays derives the ways to the LAN behind the links from the routes of table main, those of one family (Facts.Of). Of equal
// prefixes the lowest metric counts; several hops for one of them, routes that lead to no link, hops beyond the possible number,
// and the host's own addresses are left to the kernel.
func FindWays(f Facts, links []int) (w Ways) {
	best := routesTo(f.Routes, links)
	for _, a := range f.Addresses {
		best[netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen())] = nil
	}
	maps.DeleteFunc(best, func(dst netip.Prefix, _ []Route) bool { // comes and goes, and no session is from there
		return dst.Addr().Is6() && dst.Addr().IsLinkLocalUnicast()
	})
	for _, dst := range slices.SortedFunc(maps.Keys(best), longestFirst) {
		p := part{first: packet.AddrOf(dst.Masked().Addr()), mask: maskOf(dst)}
		if list := best[dst]; len(list) == 1 && slices.Contains(links, list[0].Index) {
			p.hop = w.number(Hop{list[0].Index, list[0].Gateway})
		}
		w.parts = append(w.parts, p)
	}
	return w
}

// routesTo are the best routes to each destination on the links, or within one of those.
func routesTo(routes []Route, links []int) map[netip.Prefix][]Route {
	behind := func(r Route) bool { return slices.Contains(links, r.Index) }
	lan := slices.DeleteFunc(slices.Clone(routes), func(r Route) bool { return !behind(r) })
	best := make(map[netip.Prefix][]Route)
	for _, r := range routes {
		if !slices.ContainsFunc(lan, func(l Route) bool { return l.Dst.Overlaps(r.Dst) && l.Dst.Bits() <= r.Dst.Bits() }) {
			continue
		}
		if old := best[r.Dst]; len(old) == 0 || r.Metric < old[0].Metric {
			best[r.Dst] = []Route{r}
		} else if r.Metric == old[0].Metric {
			best[r.Dst] = append(old, r)
		}
	}
	return best
}

func longestFirst(a, b netip.Prefix) int {
	return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
}

// number returns that of a hop, counted from 1; 0 when there are too many.
func (w *Ways) number(h Hop) uint8 {
	i := slices.Index(w.Hops, h)
	if i < 0 && len(w.Hops) < maxHops {
		i = len(w.Hops)
		w.Hops = append(w.Hops, h)
	}
	return uint8(i + 1)
}

// Hop returns the number of the hop to an inside address; 0 when the host's own stack must find the way.
func (w Ways) Hop(inside packet.Addr) uint8 {
	for i := range w.parts {
		if p := &w.parts[i]; p.has(inside) {
			return p.hop
		}
	}
	return 0
}

// Equal reports whether two are the same in every hop and number.
func (w Ways) Equal(o Ways) bool {
	return slices.Equal(w.Hops, o.Hops) && slices.Equal(w.parts, o.parts)
}
