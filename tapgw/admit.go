package tapgw

import (
	"errors"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
)

// admit decides about a packet to a port of ours that belongs to no session: what the filter of a mapping lets in opens one
// there (RFC 4787 REQ-8, RFC 5382 REQ-3). The rest is dropped in silence, so that a SYN which another one of the inside
// crosses does no harm (RFC 5382 REQ-4).
func (g *Gateway) admit(b []byte, p *packet.Packet, key nat.InKey, port nat.Ownership, now nat.Tick) Result {
	v := g.view.Load()
	u := v.ByID(key.Uplink)
	if port != nat.Mapped || u == nil || p.Kind == packet.TCP && !opens(p) {
		return g.drop(NoSession)
	}
	if ref := g.acceptRelated(u, key, now); ref != 0 {
		tr := g.table.Translation(ref)
		return g.deliverTranslated(b, p, ref, &tr, now)
	}
	if g.table.FilterOf(key.Proto) == nat.AddressAndPortDependent || !isHost(p.Src) {
		return g.drop(Filtered)
	}
	inside, _, ok := g.table.Inside(key)
	if !ok {
		return g.drop(Filtered)
	}
	ref, err := g.table.OpenIn(key, v.binding(u, policy.ReasonMapping, g.hop(inside), inside, key.Remote), now)
	if errors.Is(err, nat.ErrFiltered) {
		return g.drop(Filtered)
	}
	if err != nil {
		return g.drop(refusal(err))
	}
	tr := g.table.Translation(ref)
	return g.deliverTranslated(b, p, ref, &tr, now)
}

// opens reports whether a TCP segment begins a connection.
func opens(p *packet.Packet) bool {
	return p.TCPFlags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// goesOn reports whether a TCP segment belongs to a connection that is under way.
func goesOn(p *packet.Packet) bool {
	return p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) == packet.ACK
}

// hop is the way of new sessions to an inside address.
func (g *Gateway) hop(inside packet.Addr) uint8 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ways.Hop(inside)
}
