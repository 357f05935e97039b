package uplinks

import (
	"fmt"
	"net/netip"
	"slices"
)

// Numbers that mark what is ours in the kernel, so that cleaning up finds exactly that.
const (
	Protocol        = 73   // of every route we add
	ResolverRule    = 5098 // priority of the rules that lead questions to resolvers into the TAP, the first of ours
	SuppressRule    = 5099 // priority of the rule that keeps main's specific routes in front of ours
	RuleBase        = 5100 // priority of an uplink's rules, plus its ID; up to RuleLast
	PauseRule       = 5198 // priority of the rules for what began before a pause
	RuleLast        = 5199
	TableBase       = 7300                   // table of an uplink, plus its ID
	ResolverTable   = TableBase + MaxUplinks // of what ResolverRule leads into the TAP
	PauseTable      = ResolverTable + 1      // of what PauseRule does, the last of ours
	TableMain       = 254
	CaptureMetric   = 75 // of the default route through the TAP when nothing is lower
	giveBackSuffix  = "u"
	usableNeighbour = 0x02 | 0x04 | 0x08 | 0x10 | permanentNeighbour // NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT
	// permanentNeighbour is an entry that the kernel takes from nobody on the link.
	permanentNeighbour = 0x80 // NUD_PERMANENT
)

// tunnelKinds are device kinds that VPNs use.
var tunnelKinds = []string{"wireguard", "tun", "ipip", "gre", "sit", "vti", "xfrm", "ip6tnl"}

// fancifulKinds are device kinds whose drivers report a link speed that means nothing.
var fancifulKinds = append([]string{"veth", "dummy", "ppp", "ifb"}, tunnelKinds...)

func isTunnel(l Link) bool { return slices.Contains(tunnelKinds, l.Kind) }

// inFront reports whether a default route by l with that metric is a VPN's that stays before ours by choice: a tunnel
// whose metric is below our usual one (NetworkManager gives VPNs 50). It is no uplink: what it encapsulates comes to us.
func inFront(l Link, metric int) bool { return isTunnel(l) && metric < CaptureMetric }

// trustedSpeed is the link speed where it says something of the capacity.
func trustedSpeed(l Link) uint64 {
	if slices.Contains(fancifulKinds, l.Kind) {
		return 0
	}
	return l.Speed
}

func nonZero(a, b uint64) uint64 {
	if a != 0 {
		return a
	}
	return b
}

// view is Facts indexed for the questions asked here.
type view struct {
	links      []Link
	byIndex    map[int]Link
	addresses  map[int][]Address
	defaults   map[int]Route // the one with the lowest metric of each link, never ours
	neighbours map[neighbourKey]Neighbour
	resolvers  map[int][]netip.Addr
	ruled      bool
}

type neighbourKey struct {
	index int
	addr  netip.Addr
}

func newView(f Facts) *view {
	v := &view{links: f.Links, byIndex: make(map[int]Link), addresses: make(map[int][]Address),
		defaults: make(map[int]Route), neighbours: make(map[neighbourKey]Neighbour), resolvers: f.Resolvers, ruled: f.Ruled}
	for _, l := range f.Links {
		v.byIndex[l.Index] = l
	}
	for _, a := range f.Addresses {
		v.addresses[a.Index] = append(v.addresses[a.Index], a)
	}
	for _, r := range f.Routes {
		if !isForeignDefault(r) {
			continue
		}
		if best, ok := v.defaults[r.Index]; !ok || r.Metric < best.Metric {
			v.defaults[r.Index] = r
		}
	}
	for _, n := range f.Neighbours {
		v.neighbours[neighbourKey{n.Index, n.Addr}] = n
	}
	return v
}

func isForeignDefault(r Route) bool {
	return r.Table == TableMain && r.Protocol != Protocol && r.Dst.IsValid() && r.Dst.Bits() == 0 && r.Index != 0
}

// byName finds the link with that name.
func (v *view) byName(name string) (Link, bool) {
	i := slices.IndexFunc(v.links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return v.links[i], true
}

// own lists the addresses of a link that its packets may carry.
func (v *view) own(index int) (list []netip.Addr) {
	for _, a := range v.addresses[index] {
		if a.Prefix.Addr().IsGlobalUnicast() {
			list = append(list, a.Prefix.Addr())
		}
	}
	return list
}

// pool lists the usable addresses of a link, or deprecated ones where it has no other, the default route's preferred source first.
func (v *view) pool(index int) []netip.Addr {
	pool := v.addressesThat(index, func(a Address) bool { return !a.Passing })
	if len(pool) == 0 {
		pool = v.addressesThat(index, func(a Address) bool { return a.Deprecated })
	}
	pool = preferPublic(pool)
	if i := slices.Index(pool, v.defaults[index].Source); i > 0 {
		first := pool[i]
		pool = slices.Insert(slices.Delete(pool, i, i+1), 0, first)
	}
	return pool
}

// addressesThat lists those of a link that fit, and that sessions can be translated to.
func (v *view) addressesThat(index int, fit func(Address) bool) (list []netip.Addr) {
	for _, a := range v.addresses[index] {
		if addr := a.Prefix.Addr(); fit(a) && addr.IsGlobalUnicast() && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	return list
}

// preferPublic leaves out the local addresses of IPv6 (RFC 4193) where there are others.
func preferPublic(pool []netip.Addr) []netip.Addr {
	local := func(a netip.Addr) bool { return a.Is6() && a.IsPrivate() }
	if slices.ContainsFunc(pool, func(a netip.Addr) bool { return !local(a) }) {
		return slices.DeleteFunc(pool, local)
	}
	return pool
}

// covered reports whether addr lies in a subnet of the link.
func (v *view) covered(index int, addr netip.Addr) bool {
	return slices.ContainsFunc(v.addresses[index], func(a Address) bool { return onLinkPrefix(a).Contains(addr) })
}

// onLinkPrefix is the destination that an address makes directly reachable.
func onLinkPrefix(a Address) netip.Prefix {
	if a.Peer.IsValid() && a.Peer != a.Prefix.Addr() {
		return netip.PrefixFrom(a.Peer, a.Prefix.Bits()).Masked()
	}
	return a.Prefix.Masked()
}

// matchLinks gives every known uplink its link: by name, else (renamed) by index, else (re-plugged under another name) by
// MAC address. Those that leave come last.
func (t *Tracker) matchLinks() {
	claimed := make(map[int]bool)
	matched := make(map[*tracked]Link)
	list := slices.DeleteFunc(slices.Clone(t.list[:]), func(u *tracked) bool { return u == nil })
	slices.SortStableFunc(list, func(a, b *tracked) int {
		switch {
		case a.leaving == b.leaving:
			return 0
		case a.leaving:
			return 1
		}
		return -1
	})
	for _, find := range []func(*tracked) (Link, bool){t.linkByName, t.linkByIndex, t.linkByMAC} {
		for _, u := range list {
			if matched[u].Index != 0 {
				continue
			}
			if l, ok := find(u); ok && !claimed[l.Index] && !t.ours(l) {
				claimed[l.Index], matched[u] = true, l
			}
		}
	}
	for _, u := range t.list {
		if u != nil {
			u.attach(matched[u])
		}
	}
}

func (t *Tracker) linkByName(u *tracked) (Link, bool) {
	if l, ok := t.views[IPv4].byName(u.spec.Interface); ok && u.configured {
		return l, true
	}
	return t.views[IPv4].byName(u.iface)
}

func (t *Tracker) linkByIndex(u *tracked) (Link, bool) {
	l, ok := t.views[IPv4].byIndex[u.link.Index]
	return l, ok && l.MAC == u.link.MAC
}

// linkByMAC serves discovered uplinks only, for a Spec names its interface. The link must look like an uplink, because
// VLANs, bridges and bonds share addresses with their parts.
func (t *Tracker) linkByMAC(u *tracked) (Link, bool) {
	if u.configured || u.link.MAC == [6]byte{} {
		return Link{}, false
	}
	for _, l := range t.views[IPv4].links {
		if _, has := t.defaultRoute(l); has && l.MAC == u.link.MAC {
			return l, true
		}
	}
	return Link{}, false
}

// attach moves u to l; a zero l means that the interface is gone. The MAC address is remembered for its return.
func (u *tracked) attach(l Link) {
	if l.Index != u.link.Index {
		for f := range u.sides {
			u.sides[f].gateway, u.sides[f].gatewayMAC = netip.Addr{}, [6]byte{}
		}
	}
	if l.Index == 0 {
		u.link = Link{MAC: u.link.MAC}
		return
	}
	u.link, u.iface, u.seen = l, l.Name, true
}

func (t *Tracker) ours(l Link) bool {
	return l.Loopback || t.cfg.TapName != "" && (l.Name == t.cfg.TapName || l.Name == t.cfg.TapName+giveBackSuffix)
}

// discover adds uplinks for links that qualify and are not known yet.
func (t *Tracker) discover() {
	if len(t.cfg.Specs) > 0 {
		return
	}
	known := make(map[int]bool)
	for _, u := range t.list {
		if u != nil {
			known[u.link.Index] = true
		}
	}
	for _, l := range t.views[IPv4].links {
		if known[l.Index] || !t.qualifies(l) {
			continue
		}
		if u := t.addEvicting(t.freeName(l.Name)); u != nil {
			u.attach(l)
		}
	}
}

// freeName avoids the name of a known uplink whose interface was renamed and has given its name to another.
func (t *Tracker) freeName(name string) string {
	taken := func(n string) bool {
		return slices.ContainsFunc(t.list[:], func(u *tracked) bool { return u != nil && u.name == n })
	}
	free := name
	for n := 2; taken(free); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

func (t *Tracker) qualifies(l Link) bool {
	if t.ours(l) {
		return false
	}
	if r, ok := t.defaultRoute(l); ok {
		return !inFront(l, r.Metric)
	}
	// A tunnel without a default route is a split tunnel unless its address is a public one.
	return l.PointToPoint && slices.ContainsFunc(t.views[IPv4].pool(l.Index), func(a netip.Addr) bool {
		return !isTunnel(l) || isPublic(a)
	})
}

// defaultRoute is that of a link, of IPv4 where it has both.
func (t *Tracker) defaultRoute(l Link) (Route, bool) {
	for _, v := range t.views {
		if r, ok := v.defaults[l.Index]; ok {
			return r, true
		}
	}
	return Route{}, false
}

// sharedSpace is carrier-grade NAT (RFC 6598), which overlay VPNs use too.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(a netip.Addr) bool { return !a.IsPrivate() && !sharedSpace.Contains(a) }
