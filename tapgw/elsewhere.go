package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// A packet to an address of one uplink may be received by another: paths of providers are asymmetric, and sources are forged. The
// host's stack takes such packets for its services, but must never answer what a mapping waits for.

// toHost is the result for a packet that is for nothing on the uplink that received it: left to the host's stack, unless it is
// for a mapping of another uplink.
func (g *Gateway) toHost(b []byte, p *packet.Packet, uplink uint8, res Result) Result {
	if (res.Verdict == Ignore || res.Verdict == GiveBack) && g.isElsewhere(b, p, uplink) {
		return g.drop(WrongUplink)
	}
	return res
}

// isElsewhere reports whether a packet is for a mapping of another uplink than the one that received it. What has the same address
// on both is judged by the latter alone.
func (g *Gateway) isElsewhere(b []byte, p *packet.Packet, uplink uint8) bool {
	v := g.view.Load()
	if !v.leads(p.Dst) || v.has(uplink, p.Dst) {
		return false
	}
	return slices.ContainsFunc(v.Uplinks, func(u *uplinks.Uplink) bool {
		return v.has(u.ID, p.Dst) && g.isMapped(b, p, u.ID)
	})
}

// has reports whether an address is one of an uplink's.
func (v *view) has(uplink uint8, a packet.Addr) bool {
	return int(uplink) < len(v.addresses) && (slices.Contains(v.addresses[uplink], a) || v.ownerTo(uplink, a).whole)
}

// homeOf returns the uplink that has an address, preferably the one that received a packet to it.
func (v *view) homeOf(uplink uint8, a packet.Addr) uint8 {
	if u := v.Owner(a.Netip()); u != nil && !v.has(uplink, a) {
		return u.ID
	}
	return uplink
}

// isMapped reports whether a packet would be for a mapping, or a session, if an uplink had received it.
func (g *Gateway) isMapped(b []byte, p *packet.Packet, uplink uint8) bool {
	if g.view.Load().ownerTo(uplink, p.Dst).whole {
		return true
	}
	key, ok := nat.InKeyOf(p, uplink)
	switch p.Kind {
	case packet.ICMPError:
		key, ok = nat.QuotedKeyIn(b[packet.VnetLen:], p, uplink)
	case packet.TCP, packet.UDP:
		if g.table.Owned(uplink, p.Proto, p.Dst, p.DstPort) != nat.Free && !g.cfg.Held(p.Proto, p.Dst, p.DstPort) {
			return true
		}
	}
	return ok && g.table.FindIn(key) != 0
}
