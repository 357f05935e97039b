package tapgw

import (
	"net/netip"

	"tapgw/internal/craft"
	"tapgw/internal/packet"
)

// Of neighbour solicitations (RFC 4861 §4.3).
const (
	neighbourSolicitation = 135
	ownLinkHopLimit       = 255 // what a router has passed on has less
)

// answerSolicitation answers a neighbour solicitation for an address of the imaginary router (RFC 4861 §7.2.4). The other
// messages that stay on their link are for routers and groups that are not there. The host has a permanent neighbour entry
// too: this is for whoever deletes it, and for tools that ask.
func (g *Gateway) answerSolicitation(frame []byte, p *packet.Packet) Result {
	res := Result{Verdict: Ignore}
	if p.ICMPType != neighbourSolicitation || p.TTL != ownLinkHopLimit || p.Frag != 0 { // RFC 6980 §5 for the last
		return res
	}
	message := frame[p.L4 : int(p.L3)+int(p.Len)]
	target, sourced, ok := craft.Solicited(message)
	if !ok || target != g.cfg.GatewayIP && target != g.routerAddr() {
		return res
	}
	if asks(p, target, sourced) && summed(message, p) {
		l := craft.Link{Source: g.cfg.GatewayMAC, Destination: g.cfg.TAPMAC}
		res.Reply = craft.Advertisement(l, target, p.Src.Netip())
	}
	return res
}

// asks reports whether a solicitation comes from one node and goes to the target or its group; without a sender, who checks
// that nobody has the address yet, to the group alone and with no link-layer address (RFC 4861 §7.1.1).
func asks(p *packet.Packet, target netip.Addr, sourced bool) bool {
	group := solicitedNode(packet.AddrOf(target))
	if p.Src == (packet.Addr{}) {
		return p.Dst == group && !sourced
	}
	return !p.Src.Netip().IsMulticast() && (p.Dst == group || p.Dst == packet.AddrOf(target))
}

// solicitedNode is the group that hears solicitations for an address (RFC 4291 §2.7.1).
func solicitedNode(a packet.Addr) packet.Addr {
	return packet.Addr{Hi: 0xff02 << 48, Lo: 0x1_ff00_0000 | a.Lo&0xff_ffff}
}

// summed reports whether the checksum of an ICMPv6 message is right (RFC 4443 §2.3).
func summed(message []byte, p *packet.Packet) bool {
	return packet.Fold(packet.Sum(packet.PseudoHeader(p.Src, p.Dst, packet.ProtoICMPv6, len(message)), message)) == 0xffff
}
