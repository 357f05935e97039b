package uplinks

import (
	"net/netip"
	"slices"
	"time"
)

// Family is a version of the Internet Protocol.
type Family uint8

// The families, in the order of their sides.
const (
	IPv4 Family = iota
	IPv6
	families
)

// Families are all.
var Families = [families]Family{IPv4, IPv6}

// familyOf returns the family of an address.
func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Side is what an uplink is to one family.
type Side struct {
	State  State     // "" as long as the uplink has never had an IPv6 address
	Reason string    // why State is not Up, one clause for people
	Since  time.Time // of State
	// Unproven: the link lacks nothing, but no probe has succeeded under these addresses yet.
	Unproven bool
	Cut      bool // the device passes nothing, so nobody need be asked

	Addresses  []netip.Addr // never empty while usable; those of Static come late, Retired last
	Static     []Static     // inside hosts that have one of Addresses for themselves
	Retired    []netip.Addr // of Addresses: deprecated ones, for the sessions that use them (RFC 4862 §5.5.4)
	NPTv6      []NPTv6      // prefixes of the inside that are translated to prefixes routed here
	Gateway    netip.Addr   // invalid on point-to-point links
	Resolvers  []netip.Addr // of the ISP, which asked by another way may not answer
	GatewayMAC [6]byte      // zero until resolved, and on header-less links
	Pinned     bool         // the user has entered GatewayMAC in the kernel himself

	// Generation, from 1, changes whenever sessions made before can no longer work: an address they use was lost, unless it
	// was retired and the sessions of the others go on. While there is no address at all the verdict waits, so that the same
	// address after a re-dial or re-plug keeps them.
	Generation uint32
	Health     Health
}

// side is what the tracker remembers of a Side between updates.
type side struct {
	family      Family
	addresses   []netip.Addr
	static      []Static
	nptv6       []NPTv6
	retired     []netip.Addr
	held        []netip.Addr // addresses the sessions of this generation may use
	heldRetired []netip.Addr // … that were no longer for new ones
	heldNPTv6   []NPTv6      // … and prefixes
	generation  uint32
	gateway     netip.Addr
	resolvers   []netip.Addr
	gatewayMAC  [6]byte
	pinned      bool
	source      netip.Addr // that the default route prefers, or invalid
	health      Health
	proven      bool // a probe succeeded under this generation
	damping     damping

	state  State // "" until published
	reason string
	since  time.Time
}

// refresh takes addresses and gateway from what is seen of u.
func (s *side) refresh(u *tracked, v *view) {
	configured := u.spec.addresses(s.family)
	switch {
	case u.link.Index == 0:
		s.addresses = nil
	case len(configured) > 0:
		s.addresses = configured
	default:
		s.addresses = v.pool(u.link.Index)
	}
	s.refreshGateway(u, v)
	if len(configured) == 0 {
		s.addresses = v.withoutAliases(u.link.Index, s.addresses, s.gateway, s.source)
	}
	s.addStatic(u.spec.Static)
	s.addRetired(v.addresses[u.link.Index])
	s.addNPTv6(u.spec.NPTv6)
	s.compareAddresses(u)
	if u.link.cut() {
		s.health = Health{} // what comes back may be something else, and what was asked meanwhile says nothing of it
	}
	s.resolvers = ownResolvers(u.spec.Resolvers, v.resolvers[u.link.Index], s.family)
}

// addRetired keeps addresses of IPv6 that sessions use and the device still has, behind those for new sessions: a prefix that is
// replaced is deprecated long before it goes.
func (s *side) addRetired(onLink []Address) {
	s.retired = nil
	if s.family != IPv6 || len(s.addresses) == 0 {
		return
	}
	for _, a := range onLink {
		addr := a.Prefix.Addr()
		if a.Passing && slices.Contains(s.held, addr) && !slices.Contains(s.addresses, addr) {
			s.retired = append(s.retired, addr)
		}
	}
	s.addresses = append(slices.Clip(s.addresses), s.retired...)
}

// compareAddresses decides whether sessions survive. A link without any address decides nothing, nor does one that has lost its
// gateway, by which nothing leaves: what comes next does.
func (s *side) compareAddresses(u *tracked) {
	if len(s.addresses) == 0 || s.held != nil && !u.link.HeaderLess && !s.gateway.IsValid() {
		return
	}
	lost := slices.ContainsFunc(s.held, func(a netip.Addr) bool {
		return !slices.Contains(s.addresses, a) && !slices.Contains(s.heldRetired, a)
	})
	if lost {
		s.generation++
		s.health, s.proven = Health{}, false
	} else if s.lostNPTv6() {
		s.generation++
	}
	s.held, s.heldRetired, s.heldNPTv6 = s.addresses, s.retired, s.nptv6
}

// addresses are those of a family that the configuration wants used.
func (s *Spec) addresses(f Family) (list []netip.Addr) {
	for _, a := range s.Addresses {
		if familyOf(a) == f {
			list = append(list, a)
		}
	}
	return list
}

// refreshGateway takes the gateway, its MAC address and the default route's source. The last gateway and source are kept when
// the default route goes but the subnet stays, and the last MAC address while the kernel asks anew.
func (s *side) refreshGateway(u *tracked, v *view) {
	gateway := s.findGateway(u, v)
	if r, ok := v.defaults[u.link.Index]; ok || !gateway.IsValid() {
		s.source = r.Source
	}
	if gateway != s.gateway {
		s.gateway, s.gatewayMAC = gateway, [6]byte{}
	}
	n, ok := v.neighbours[neighbourKey{u.link.Index, gateway}]
	s.pinned = ok && n.State&permanentNeighbour != 0
	if ok && n.State&usableNeighbour != 0 && n.MAC != [6]byte{} {
		s.gatewayMAC = n.MAC
	}
}

func (s *side) findGateway(u *tracked, v *view) netip.Addr {
	r, hasDefault := v.defaults[u.link.Index]
	switch {
	case u.link.Index == 0 || u.link.HeaderLess:
		return netip.Addr{}
	case u.spec.Gateway.IsValid() && familyOf(u.spec.Gateway) == s.family:
		return u.spec.Gateway
	case hasDefault && r.Gateway.IsValid():
		return r.Gateway
	case s.gateway.IsValid() && (v.covered(u.link.Index, s.gateway) || s.gateway.IsLinkLocalUnicast() && len(s.addresses) > 0):
		return s.gateway
	}
	return netip.Addr{}
}

// What keeps packets from leaving by an uplink, where its own host can help.
const (
	LacksInterface = "no such interface"
	LacksDevice    = "interface is gone"
	LacksPower     = "interface is switched off"
	LacksAddress   = "no " + lacksAddress // of IPv4
	LacksGateway   = "no " + lacksGateway // of IPv4
	lacksAddress   = "address"
	lacksGateway   = "gateway"
)

// lacks names what keeps any packet from leaving by u, "" when nothing does.
func (s *side) lacks(u *tracked) string {
	kind := ""
	if s.family == IPv6 {
		kind = "IPv6 "
	}
	switch {
	case u.link.Index == 0 && !u.seen:
		return LacksInterface
	case u.link.Index == 0:
		return LacksDevice
	case !u.link.Up:
		return LacksPower
	case !u.link.Carrier:
		return "no carrier"
	case len(s.addresses) == 0:
		return "no " + kind + lacksAddress
	case !u.link.HeaderLess && !s.gateway.IsValid():
		return "no " + kind + lacksGateway
	}
	return ""
}

// publish returns what is seen of s.
func (s *side) publish(u *tracked) Side {
	return Side{
		State: s.state, Reason: s.reason, Since: s.since, Unproven: !s.proven && s.lacks(u) == "", Cut: u.link.cut(),
		Addresses: slices.Clone(s.addresses), Retired: slices.Clone(s.retired),
		Static: slices.Clone(s.static), NPTv6: slices.Clone(s.nptv6),
		Gateway: s.gateway, Resolvers: s.resolvers, GatewayMAC: s.gatewayMAC, Pinned: s.pinned, Generation: s.generation, Health: s.health,
	}
}
