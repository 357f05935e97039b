package tapgw

import (
	"net/netip"
	"sync/atomic"

	"tapgw/internal/craft"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// severed are the uplinks whose TCP connections have been reset, while they are avoided.
type severed [uplinks.MaxUplinks]atomic.Bool

// SetSevered begins or ends that segments of established connections on an uplink are answered with a reset.
func (g *Gateway) SetSevered(uplink uint8, is bool) { g.severed[uplink].Store(is) }

// isSevered reports whether a segment is one of a connection that is to be reset.
func (g *Gateway) isSevered(p *packet.Packet, ref nat.Ref, tr *nat.Translation) bool {
	return p.Kind == packet.TCP && g.severed[tr.Uplink].Load() && g.Severs(tr, g.table.Rule(ref))
}

// Severs reports whether a TCP session that a rule placed, 0 for none, is reset when its uplink is down. A turned one never leaves by
// its uplink.
func (g *Gateway) Severs(tr *nat.Translation, rule uint32) bool {
	return !tr.Turned && g.routing.Load().onUplinkDown(rule) == policy.ResetTCP
}

// SeversAny reports whether there may be sessions that Severs is true of.
func (g *Gateway) SeversAny() bool { return g.routing.Load().resets }

// keeps reports whether a TCP session waits for its uplink in any case.
func (g *Gateway) keeps(ref nat.Ref) bool {
	return g.routing.Load().onUplinkDown(g.table.Rule(ref)) == policy.KeepTCP
}

// Resets calls deliver with the frames (virtio header and all, for the way to the LAN hop, 0 for the TAP) that tell the inside of
// a session that it has ended. A reset counts only at the very number that the inside expects (RFC 5961 §3.2). That is the one it
// acknowledged last; or, as acknowledgements lag, the end of what it was sent. It answers a reset at any other number within its
// window with the right one, in a segment of no session, which gets an exact reset.
func (g *Gateway) Resets(s *nat.Severed, deliver func(hop uint8, frame []byte)) {
	l := craft.Link{Source: g.cfg.GatewayMAC, Destination: g.cfg.TAPMAC}
	from, to := netip.AddrPortFrom(s.Remote.Netip(), s.RemotePort), netip.AddrPortFrom(s.Inside.Netip(), s.InsidePort)
	hop := lanHop(&nat.Translation{Hop: s.Hop})
	deliver(hop, craft.ResetAt(l, from, to, s.Next))
	if s.End != s.Next {
		deliver(hop, craft.ResetAt(l, from, to, s.End))
	}
}
