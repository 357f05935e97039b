package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// portDomainTLS is where servers of names are asked by DNS over TLS (RFC 7858 §3.1).
const portDomainTLS = 853

// idSet is a set of uplinks, one bit for each ID.
type idSet uint32

func (s idSet) has(id uint8) bool { return s>>id&1 != 0 }

// addResolvers notes whose customers the resolvers of an uplink's ISP answer.
func (v *view) addResolvers(u *uplinks.Uplink) {
	for _, a := range u.Resolvers {
		if v.resolvers == nil {
			v.resolvers = make(map[packet.Addr]idSet)
		}
		v.resolvers[packet.AddrOf(a)] |= 1 << u.ID
	}
}

// resolving is the set of uplinks that have resolvers.
func (v *view) resolving() (all idSet) {
	for _, owners := range v.resolvers {
		all |= owners
	}
	return all
}

// byResolver returns the uplink of a session to an ISP's resolver, which does not answer others' customers, whatever the endpoint is
// mapped on; a rule comes first. When that uplink is not usable the session is refused, so that the next resolver is asked at
// once, but not where no usable uplink has one: this one may answer after all.
func (g *Gateway) byResolver(o *opening) (id uint8, why Reason, ok bool) {
	owners := o.v.resolvers[o.key.Remote]
	if owners == 0 || o.rule != policy.NoRule || !asksNames(o.key) {
		return 0, NoReason, false
	}
	if g.consider(o) != NoReason {
		return 0, NoReason, false
	}
	all := o.v.resolving()
	answered := slices.ContainsFunc(g.candidates, func(c policy.Candidate) bool { return all.has(c.ID) })
	g.candidates = slices.DeleteFunc(g.candidates, func(c policy.Candidate) bool { return !owners.has(c.ID) })
	if len(g.candidates) == 0 {
		return 0, ResolverDown, answered
	}
	if id, mapped := g.table.Bound(o.key.Proto, o.key.Inside, o.key.InsidePort); mapped && g.isCandidate(id) {
		return id, NoReason, true
	}
	id, _ = g.choose(o)
	return id, NoReason, true
}

// asksNames reports whether a session is with a server of names.
func asksNames(k nat.Key) bool {
	return (k.Proto == packet.ProtoUDP || k.Proto == packet.ProtoTCP) && (k.RemotePort == portDomain || k.RemotePort == portDomainTLS)
}
