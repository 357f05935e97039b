package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// A packet of the inside to an outside endpoint of ours turns back (RFC 4787 REQ-9): it is translated as if it left by the
// sender's uplink, and then as if it came in by the uplink of the endpoint, with all that filters and counts there.

// turn takes what would leave by an uplink in again, with the fragments that were held for it.
func (g *Gateway) turn(b []byte, p *packet.Packet, out Result, now nat.Tick) Result {
	res := g.turnOne(b, p, now)
	res.Grown += out.Grown
	for _, f := range out.Released {
		var q packet.Packet
		q.Decode(f[packet.VnetLen:])
		later := g.turnOne(f, &q, now)
		if later.Verdict == Deliver {
			res.Released = append(res.Released, f)
		}
		res.Released = append(res.Released, later.Released...)
	}
	return res
}

// turnOne takes one frame in by the uplink that has its destination. The host's stack has no use for what is nobody's there.
func (g *Gateway) turnOne(b []byte, p *packet.Packet, now nat.Tick) Result {
	uplink, ok := g.turnsTo(b, p)
	if !ok {
		return g.drop(NoSession)
	}
	res := g.Inbound(b, uplink, now)
	if res.Verdict == GiveBack || res.Verdict == Ignore {
		return g.drop(NoSession)
	}
	return res
}

// turnsTo finds the uplink where the destination of a translated packet is mapped. Two may have the same address; a later
// fragment, which has no port, then goes to the first.
func (g *Gateway) turnsTo(b []byte, p *packet.Packet) (uplink uint8, ok bool) {
	v := g.view.Load()
	for _, u := range v.Uplinks {
		if v.ownerTo(u.ID, p.Dst).whole {
			return u.ID, true
		}
		if !slices.Contains(v.addresses[u.ID], p.Dst) {
			continue
		}
		switch p.Kind {
		case packet.TCP, packet.UDP:
			ok = g.table.Owned(u.ID, p.Proto, p.Dst, p.DstPort) == nat.Mapped
		case packet.ICMPError:
			key, quotes := nat.QuotedKeyIn(b[packet.VnetLen:], p, u.ID)
			ok = quotes && g.table.FindIn(key) != 0
		default:
			ok = true
		}
		if ok {
			return u.ID, true
		}
	}
	return 0, false
}

// isOwn reports whether an address is one of ours on an uplink.
func (g *Gateway) isOwn(a packet.Addr) bool { return g.view.Load().Owner(a.Netip()) != nil }

// turns reports whether a packet to an address of ours is for a mapping of the LAN, or an address of a LAN host's own. If
// not it is the host's, from which the rules of package nft have taken it: also for a mapping of its own, whose answers
// would never come to us.
func (g *Gateway) turns(b []byte, p *packet.Packet) bool {
	if s := g.view.Load().staticAt(p.Dst); s != nil {
		return !g.isHostItself(s.inside)
	}
	if p.Kind != packet.TCP && p.Kind != packet.UDP {
		return false
	}
	uplink, mapped := g.turnsTo(b, p)
	if !mapped || g.cfg.Held(p.Proto, p.Dst, p.DstPort) {
		return false
	}
	k := nat.InKey{Outside: p.Dst, OutsidePort: p.DstPort, Proto: p.Proto, Uplink: uplink}
	inside, _, _ := g.table.Inside(k)
	return !g.isHostItself(inside)
}
