package tapgw

import (
	"tapgw/internal/craft"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// refuse drops a packet from the inside and, within the rate limit, tells its sender why; never about a later fragment or
// an ICMP error, and never who may be several or on another link (RFC 1122 §3.2.2, RFC 4443 §2.4(e)).
func (g *Gateway) refuse(why Reason, b []byte, p *packet.Packet, mtu int, now nat.Tick) Result {
	res := g.drop(why)
	if p.Kind != packet.Fragment && p.Kind != packet.ICMPError && isHost(p.Src) && g.originated.allow(now) {
		res.Reply = g.answer(why, b, p, mtu)
	}
	return res
}

// answer builds what tells the sender: no route where there is no way to the destination, or none that its subnet may take (RFC
// 6296 §4.2), the source where that may take none (RFC 6296 §3.7), that it is prohibited where the translator has no room (RFC 5508
// REQ-8), the MTU where the packet does not fit, and a reset for TCP we do not know, so that the application connects again at once.
func (g *Gateway) answer(why Reason, b []byte, p *packet.Packet, mtu int) []byte {
	l := craft.Link{Source: g.cfg.GatewayMAC, Destination: g.cfg.TAPMAC}
	ip := b[packet.VnetLen+int(p.L3):][:p.Len]
	trouble := craft.Prohibited
	switch why {
	case NotSYN:
		return craft.Reset(l, ip[p.L4-p.L3:], p.Dst.Netip(), p.Src.Netip())
	case TooBig:
		trouble = craft.TooBig
	case NoUplink, NoRoute, ReservedSubnet:
		trouble = craft.NoRoute
	case GroupDown, ResolverDown:
		trouble = craft.Prohibited
		if why == ResolverDown { // who asks tries the next resolver at once
			trouble = craft.BadPort
		}
		if p.Kind == packet.TCP { // or the application goes on asking
			return craft.Reset(l, ip[p.L4-p.L3:], p.Dst.Netip(), p.Src.Netip())
		}
	case ReservedHost:
		trouble = craft.BadSource
	}
	return craft.Error(l, g.routerAddr(), p.Src.Netip(), ip, trouble, mtu)
}
