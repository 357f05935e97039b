package uplinks

import (
	"cmp"
	"net/netip"
	"slices"
)

// Capture says where captured traffic goes.
type Capture struct {
	TapIndex   int        // 0 while there is no TAP
	TapAddress netip.Addr // the host's address on it, source of captured host traffic
	TapGateway netip.Addr // the gateway's address on it
	// TapAddressV6 is the host's IPv6 address on it, invalid while IPv6 is not captured; TapGatewayV6 is link-local.
	TapAddressV6, TapGatewayV6 netip.Addr
	// Steered says that the kernel sends what comes out of the TAP with an uplink's own address by that uplink, whichever family.
	Steered bool
	// Only, when it is not empty, has nothing captured but what this host sends from these addresses, which are the TAP's.
	Only []netip.Addr
}

// Wanted is everything that we want in the kernel, in the order in which it is to be installed: routes of the uplinks'
// tables, rules, routes of main (the one through the TAP last), demotions. Removal goes the other way round.
type Wanted struct {
	Rules  []Rule
	Routes []Route
	Demote []Demotion
}

// Demotion asks to re-add a default route of somebody else with a higher metric, so that ours comes before it.
type Demotion struct {
	Route  Route // as it is now
	Metric int   // as it shall be
}

var (
	everywhere       = netip.MustParsePrefix("0.0.0.0/0")
	everywhereV6     = netip.MustParsePrefix("::/0")
	multicast        = netip.MustParsePrefix("224.0.0.0/4")
	limitedBroadcast = netip.MustParsePrefix("255.255.255.255/32")
)

// Plan computes what must be in the kernel for these uplinks. Without a TAP or an uplink nothing is captured and no
// foreign route is touched.
func Plan(s *Snapshot, f Facts, c Capture) Wanted {
	w := Wanted{}
	for _, family := range Families {
		v := newView(f.Of(family))
		for _, u := range s.Uplinks {
			w.Routes = append(w.Routes, uplinkRoutes(v, u, family)...)
		}
		if !c.steers(family) || !v.plain(s.For(family)) {
			w.Rules = append(w.Rules, rules(v, s, family)...)
		}
	}
	if c.TapIndex == 0 || len(s.Uplinks) == 0 {
		return w
	}
	if len(c.Only) > 0 {
		w.captureOnly(c)
		return w
	}
	v := newView(f.Of(IPv4))
	capture := planCapture(f, v, s)
	w.Routes = append(w.Routes, multicastRoutes(f, v, capture.metric)...)
	w.Routes = append(w.Routes, Route{Table: TableMain, Dst: everywhere, Gateway: c.TapGateway, Source: c.TapAddress,
		Index: c.TapIndex, Metric: capture.metric, Protocol: Protocol})
	w.Demote = capture.demote
	w.captureQuestions(v, s, IPv4, Route{Gateway: c.TapGateway, Source: c.TapAddress, Index: c.TapIndex})
	if c.TapAddressV6.IsValid() && slices.ContainsFunc(s.Uplinks, (*Uplink).hasIPv6) {
		w.captureIPv6(s, f.Of(IPv6), c)
	}
	return w
}

// captureOnly leads into the TAP what connections of this host send that began there.
func (w *Wanted) captureOnly(c Capture) {
	routes := map[Family]Route{
		IPv4: {Table: PauseTable, Dst: everywhere, Gateway: c.TapGateway, Index: c.TapIndex, Protocol: Protocol},
		IPv6: {Table: PauseTable, Dst: everywhereV6, Gateway: c.TapGatewayV6, Index: c.TapIndex, Metric: metricV6, Protocol: Protocol},
	}
	for _, a := range c.Only {
		route := routes[familyOf(a)]
		if !route.Gateway.IsValid() {
			continue
		}
		if !slices.Contains(w.Routes, route) {
			w.Routes = append(w.Routes, route)
		}
		w.Rules = append(w.Rules, Rule{Priority: PauseRule, Source: netip.PrefixFrom(a, a.BitLen()), Table: PauseTable})
	}
}

// captureIPv6 adds the default route of IPv6. It prefers no source: the host takes its address on the device that packets leave
// by (RFC 6724 rule 5), and another where that one is deprecated. Multicast needs no route of ours: the kernel has one for each
// device, in a table before main.
func (w *Wanted) captureIPv6(s *Snapshot, f Facts, c Capture) {
	v := newView(f)
	capture := planCapture(f, v, s)
	w.Routes = append(w.Routes, Route{Table: TableMain, Dst: everywhereV6, Gateway: c.TapGatewayV6, Index: c.TapIndex,
		Metric: capture.metric, Protocol: Protocol})
	w.Demote = append(w.Demote, capture.demote...)
	w.captureQuestions(v, s, IPv6, Route{Gateway: c.TapGatewayV6, Index: c.TapIndex, Metric: metricV6})
}

// steers reports whether what has an uplink's own address of a family comes out of the TAP, and is sent on in the kernel.
func (c *Capture) steers(f Family) bool {
	return c.Steered && (f == IPv4 || c.TapAddressV6.IsValid())
}

// plain reports whether routing does without rules, any of which makes the kernel look up the routes of every packet anew,
// twice: what goes through the TAP is steered there, sockets that are bound to a device find its default route, and no
// neighbour of one uplink is looked for on another. A VPN that takes all that the host sends would take its answers, too.
func (v *view) plain(s *Snapshot) bool {
	if v.ruled || v.behindVPN(s) {
		return false
	}
	var others []netip.Prefix
	for _, u := range s.Uplinks {
		if !u.Ready() {
			continue
		}
		if r, ok := v.defaults[u.Index]; !ok || r.Gateway != u.Gateway {
			return false
		}
		var own []netip.Prefix
		for _, a := range v.addresses[u.Index] {
			if p := onLinkPrefix(a); p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() { // whose neighbours the link tells apart
				own = append(own, p)
			}
		}
		if slices.ContainsFunc(own, func(p netip.Prefix) bool { return slices.ContainsFunc(others, p.Overlaps) }) {
			return false
		}
		others = append(others, own...)
	}
	return true
}

// behindVPN reports whether a default route of somebody else stays before ours.
func (v *view) behindVPN(s *Snapshot) bool {
	for index, r := range v.defaults {
		if inFront(v.byIndex[index], r.Metric) && !uplinkByIndex(s, index) {
			return true
		}
	}
	return false
}

// rules sends what carries an uplink's own address by that uplink, healthy or not, so that replies, probes and bound
// sockets never meet the TAP. Behind them main's specific routes must win, or local replies would go to the ISP.
func rules(v *view, s *Snapshot, family Family) []Rule {
	var list []Rule
	taken := make(map[netip.Addr]bool)
	for _, u := range s.Uplinks {
		for _, a := range append(v.own(u.Index), u.On(family).Addresses...) {
			if u.Index == 0 || taken[a] {
				continue
			}
			taken[a] = true
			list = append(list, Rule{Priority: RuleBase + int(u.ID), Source: netip.PrefixFrom(a, a.BitLen()),
				Table: TableBase + int(u.ID)})
		}
	}
	if len(list) == 0 {
		return nil
	}
	return append([]Rule{{Priority: SuppressRule, Source: family.everywhere(), Table: TableMain, SuppressDefault: true}}, list...)
}

func (f Family) everywhere() netip.Prefix {
	if f == IPv6 {
		return everywhereV6
	}
	return everywhere
}

// metricV6 is what the kernel makes of no metric in IPv6.
const metricV6 = 1024

// uplinkRoutes is the uplink's own table: its subnets, then everything else by its gateway. The kernel takes no route for a
// device that is switched off.
func uplinkRoutes(v *view, u *Uplink, family Family) []Route {
	if u.Index == 0 || !v.byIndex[u.Index].Up {
		return nil
	}
	var list []Route
	base := Route{Table: TableBase + int(u.ID), Index: u.Index, Protocol: Protocol}
	if family == IPv6 {
		base.Metric = metricV6
	}
	for _, a := range v.addresses[u.Index] {
		r := base
		r.Dst = onLinkPrefix(a)
		if r.Dst.Addr() == a.Prefix.Addr() && r.Dst.IsSingleIP() || r.Dst.Bits() == 0 ||
			slices.ContainsFunc(list, func(o Route) bool { return o.Dst == r.Dst }) {
			continue
		}
		list = append(list, r)
	}
	exit := base
	exit.Dst = family.everywhere()
	if gateway := u.On(family).Gateway; !u.HeaderLess {
		exit.Gateway = gateway
		exit.OnLink = gateway.IsValid() && !gateway.IsLinkLocalUnicast() && !v.covered(u.Index, gateway)
	}
	if (u.HeaderLess || exit.Gateway.IsValid()) && len(v.addresses[u.Index]) > 0 {
		list = append(list, exit)
	}
	return list
}

// capturePlan is the metric of our default route and what must be moved behind it.
type capturePlan struct {
	metric int
	demote []Demotion
}

// planCapture finds a metric below that of every default route but those of VPNs in front: CaptureMetric, or one less
// than the lowest. Metric 0 cannot be ours, so routes that leave no room (0 and 1) are moved to the first free metric
// behind ours, where they stay in front of the others as before.
func planCapture(f Facts, v *view, s *Snapshot) capturePlan {
	var rivals []Route
	used := make(map[int]bool)
	for _, r := range f.Routes {
		if !isForeignDefault(r) {
			continue
		}
		used[r.Metric] = true
		if uplinkByIndex(s, r.Index) || !inFront(v.byIndex[r.Index], r.Metric) {
			rivals = append(rivals, r)
		}
	}
	slices.SortStableFunc(rivals, func(a, b Route) int { return cmp.Compare(a.Metric, b.Metric) })
	p := capturePlan{metric: CaptureMetric}
	for _, r := range rivals {
		if r.Metric > 1 {
			p.metric = min(p.metric, r.Metric-1)
			break
		}
	}
	for used[p.metric] && p.metric > 1 {
		p.metric--
	}
	next := p.metric + 1
	for _, r := range rivals {
		if r.Metric > 1 {
			break
		}
		for used[next] {
			next++
		}
		used[next] = true
		p.demote = append(p.demote, Demotion{Route: r, Metric: next})
	}
	return p
}

func uplinkByIndex(s *Snapshot, index int) bool {
	return slices.ContainsFunc(s.Uplinks, func(u *Uplink) bool { return u.Index == index })
}

// multicastRoutes keep multicast and limited broadcast on the device they had, or discovery breaks. A route of somebody
// else for the same destination already does.
func multicastRoutes(f Facts, v *view, metric int) []Route {
	device := bestDefault(f, v)
	if device == 0 {
		return nil
	}
	var list []Route
	for _, dst := range []netip.Prefix{multicast, limitedBroadcast} {
		foreign := slices.ContainsFunc(f.Routes, func(r Route) bool {
			return r.Table == TableMain && r.Protocol != Protocol && r.Dst == dst
		})
		if !foreign {
			list = append(list, Route{Table: TableMain, Dst: dst, Index: device, Metric: metric, Protocol: Protocol})
		}
	}
	return list
}

// bestDefault is the device of the default route that would be used without us, 0 when there is none.
func bestDefault(f Facts, v *view) int {
	best := Route{}
	for _, r := range f.Routes {
		if isForeignDefault(r) && v.byIndex[r.Index].Up && (best.Index == 0 || r.Metric < best.Metric) {
			best = r
		}
	}
	return best.Index
}
