package tapgw

import (
	"net/netip"
	"slices"

	"tapgw/internal/packet"
	"tapgw/uplinks"
)

// SetExempt replaces the destinations to which packets of inside hosts leave untranslated (RFC 6888 REQ-6). Sessions that there
// are go on as they are.
func (g *Gateway) SetExempt(destinations []netip.Prefix) { g.exempt.Store(&destinations) }

// asItIs returns the uplink by which a packet leaves with the source that it has, nil when it is to be translated: that which
// has the source, or for an exempt destination always the same of those that may carry new sessions. What the host itself sends
// to such a destination has an address of ours, and is translated.
func (g *Gateway) asItIs(p *packet.Packet) *uplinks.Uplink {
	v := g.view.Load()
	if u := v.Owner(p.Src.Netip()); u != nil {
		return u
	}
	exempt := *g.exempt.Load()
	if len(exempt) == 0 || g.isHostItself(p.Src) || !isHost(p.Src) {
		return nil
	}
	to := p.Dst.Netip()
	if !slices.ContainsFunc(exempt, func(d netip.Prefix) bool { return d.Contains(to) }) {
		return nil
	}
	return g.firstOf(v, p.Src)
}

// firstOf is the candidate of the lowest tier, and among those the first.
func (g *Gateway) firstOf(v *view, inside packet.Addr) (first *uplinks.Uplink) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listCandidates(v, inside)
	for i := range g.candidates {
		if u := v.ByID(g.candidates[i].ID); first == nil || u.Tier < first.Tier {
			first = u
		}
	}
	return first
}
