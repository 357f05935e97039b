package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// ownerOf returns the uplink that has the source of a packet as an address of its own, by which it leaves unchanged; nil for none.
func (g *Gateway) ownerOf(p *packet.Packet) *uplinks.Uplink {
	return g.view.Load().Owner(p.Src.Netip())
}

// isDirect reports whether a rule says that a session leaves with the address that it has (RFC 6888 REQ-6). What the host itself sends
// has an address that means nothing elsewhere, and what is for an address of ours never leaves.
func (g *Gateway) isDirect(r *ruled, p *packet.Packet) bool {
	return r.action.Direct && isHost(p.Src) && isHost(p.Dst) && !g.view.Load().leads(p.Dst)
}

// directBy returns the uplink by which all that rules leave as it is goes, nil when the group is down: of its candidates the first of
// the lowest tier.
func (g *Gateway) directBy(r *ruled, p *packet.Packet) (first *uplinks.Uplink, why Reason) {
	v := g.view.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, why = g.listCandidates(v, r, p.Src, 0); why != NoReason {
		return nil, why
	}
	return g.first(v), NoReason
}

// first is the first candidate of the lowest tier; there is one. g.mu is held.
func (g *Gateway) first(v *view) *uplinks.Uplink {
	best := 0
	for i := range g.candidates {
		if g.candidates[i].Tier < g.candidates[best].Tier {
			best = i
		}
	}
	return v.ByID(g.candidates[best].ID)
}

// direct sends a packet of no session as it is, where the rules say so.
func (g *Gateway) direct(b []byte, p *packet.Packet, r *ruled, now nat.Tick) (res Result, done bool) {
	if !g.isDirect(r, p) {
		return res, false
	}
	u, why := g.directBy(r, p)
	if why != NoReason {
		return g.refuse(why, b, p, 0, now), true
	}
	return g.own(b, p, u, now), true
}

// directError is direct for an ICMP error, which goes as the packets do that it is about, if it quotes one.
func (g *Gateway) directError(b []byte, p *packet.Packet, about nat.Key, quotes bool, now nat.Tick) (res Result, done bool) {
	s := g.sessionOf(b, p)
	if quotes {
		s = g.sessionOfKey(about)
	}
	r := g.judge(s)
	return g.direct(b, p, &r, now)
}
