package tapgw

import (
	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// Inbound handles one frame received by an uplink: b is its virtio header followed by the Ethernet frame, rewritten in
// place when the verdict is Deliver.
func (g *Gateway) Inbound(b []byte, uplink uint8, now nat.Tick) Result {
	if len(b) < packet.VnetLen {
		return g.drop(BadPacket)
	}
	var p packet.Packet
	p.Decode(b[packet.VnetLen:])
	if p.IPv6 != g.cfg.IPv6 {
		return Result{Verdict: Ignore}
	}
	o := g.view.Load().ownerTo(uplink, p.Dst)
	if o.why != nat.Translated && p.Kind != packet.Discovery {
		return g.drop(unmappedReason(o.why))
	}
	res := g.inbound(b, &p, uplink, o.whole, now)
	if o.whole && p.Kind != packet.Discovery && (res.Verdict == Ignore || res.Verdict == GiveBack) { // the host never answers for it
		return g.drop(NoSession)
	}
	if res.Verdict == Ignore && p.IPv6 && p.Options { // of what has extension headers the host's stack has no copy
		res = Result{Verdict: GiveBack, Uplink: uplink}
	}
	return g.toHost(b, &p, uplink, res)
}

// inbound is Inbound; whole says that all that is sent to the address belongs to one inside host.
func (g *Gateway) inbound(b []byte, p *packet.Packet, uplink uint8, whole bool, now nat.Tick) Result {
	g.callIn(p, uplink)
	switch p.Kind {
	case packet.TCP, packet.UDP, packet.ICMPQuery, packet.Portless, packet.Call:
		if key, ok := nat.InKeyOf(p, uplink); ok || whole {
			return g.inboundSession(b, p, key, now)
		}
	case packet.ICMPError:
		return g.inboundError(b, p, uplink)
	case packet.Fragment:
		return g.inboundFragment(b, p, uplink, whole, now)
	case packet.Malformed:
		return g.drop(BadPacket)
	}
	return Result{Verdict: Ignore}
}

// inboundSession translates a reply back to its inside endpoint.
func (g *Gateway) inboundSession(b []byte, p *packet.Packet, key nat.InKey, now nat.Tick) Result {
	ref := g.table.FindIn(key)
	if ref == 0 {
		if res, late := g.late(b, p, key, now); late {
			return res
		}
		var whole bool
		if ref, whole = g.welcome(p, key, now); ref == 0 && whole {
			return g.drop(NoSession)
		}
	}
	if ref == 0 {
		return g.inboundMiss(b, p, key, now)
	}
	tr := g.table.Translation(ref)
	return g.deliverTranslated(b, p, ref, &tr, now)
}

// deliverTranslated rewrites b by the translation and delivers it.
func (g *Gateway) deliverTranslated(b []byte, p *packet.Packet, ref nat.Ref, tr *nat.Translation, now nat.Tick) Result {
	u := g.view.Load().ByID(tr.Uplink)
	if u == nil || u.Generation != tr.Generation {
		return g.drop(StaleSession)
	}
	length := len(b)
	if tr.Helped {
		var ok bool
		if b, ok = g.help(b, p, ref, tr, helper.Inbound, u.MTU, now); !ok {
			return g.drop(HelperWaits)
		}
	}
	vnet := packet.VnetHeader(b)
	if !nat.RewriteIn(b[packet.VnetLen:], p, tr, vnet.NeedsCsum()) {
		return g.drop(BadPacket)
	}
	g.clamp(b, p, u)
	g.table.CountIn(ref, now, int(p.Len), segments(vnet, p), p)
	if p.Kind == packet.TCP && p.TCPFlags&(packet.SYN|packet.RST) != 0 {
		g.watch.answered(ref, tr.Uplink, g.cfg.Clock())
	}
	g.address(b)
	return Result{Verdict: Deliver, Hop: lanHop(tr), Grown: int32(len(b) - length)}
}

// lanHop is the session's way to the LAN, 0 when that is the TAP.
func lanHop(tr *nat.Translation) uint8 {
	if tr.Hop == nat.HopDevice {
		return 0
	}
	return tr.Hop
}

// inboundMiss decides about a packet without a session: that of a mapping's filter when the port is ours, else the host's. Of
// protocols without ports the host's stack has no copy.
func (g *Gateway) inboundMiss(b []byte, p *packet.Packet, key nat.InKey, now nat.Tick) Result {
	if visible := g.request(p, key.Uplink, now); visible || p.Kind == packet.ICMPQuery {
		return Result{Verdict: Ignore}
	}
	port := g.table.Owned(key.Uplink, p.Proto, p.Dst, p.DstPort)
	if port == nat.Free || g.cfg.Held(p.Proto, p.Dst, p.DstPort) {
		return Result{Verdict: GiveBack, Uplink: key.Uplink}
	}
	return g.admit(b, p, key, port, now)
}

// inboundError translates an ICMP error about a packet we sent, found by the packet it quotes (RFC 5508 REQ-4). Errors
// about other packets are the host's, which has a copy.
func (g *Gateway) inboundError(b []byte, p *packet.Packet, uplink uint8) Result {
	frame := b[packet.VnetLen:]
	key, ok := nat.QuotedKeyIn(frame, p, uplink)
	if !ok {
		return Result{Verdict: Ignore}
	}
	ref := g.table.FindIn(key)
	if ref == 0 {
		return Result{Verdict: Ignore}
	}
	tr := g.table.Translation(ref)
	if u := g.view.Load().ByID(uplink); u == nil || u.Generation != tr.Generation {
		return g.drop(StaleSession)
	}
	if !g.table.Plausible(frame, p, ref, &tr) {
		return g.drop(ForgedICMP)
	}
	if !nat.RewriteErrorIn(frame, p, &tr) {
		return g.drop(BadICMP)
	}
	g.address(b)
	return Result{Verdict: Deliver, Hop: lanHop(&tr)}
}

// address makes the frame one that the imaginary router sends to the TAP.
func (g *Gateway) address(b []byte) {
	copy(b[packet.VnetLen:], g.cfg.TAPMAC[:])
	copy(b[packet.VnetLen+6:], g.cfg.GatewayMAC[:])
}
