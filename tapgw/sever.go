package tapgw

import (
	"net/netip"
	"sync/atomic"

	"tapgw/internal/craft"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// OnUplinkDown says what becomes of TCP sessions whose uplink is down while another works. All other sessions are bound anew with
// the next packet from inside.
type OnUplinkDown uint8

// The values of OnUplinkDown.
const (
	// ResetTCP resets connections towards the inside, so that applications connect again at once. Unanswered ones move.
	ResetTCP OnUplinkDown = iota
	// MoveUnanswered lets connections wait for their uplink, but those that nobody has answered move.
	MoveUnanswered
	// KeepTCP lets all wait.
	KeepTCP
)

// severed are the uplinks whose TCP connections have been reset, while they are avoided.
type severed [uplinks.MaxUplinks]atomic.Bool

// SetSevered begins or ends that segments of established connections on an uplink are answered with a reset.
func (g *Gateway) SetSevered(uplink uint8, is bool) { g.severed[uplink].Store(is) }

// isSevered reports whether a segment is one of a connection that is to be reset. A turned one never leaves by its uplink.
func (g *Gateway) isSevered(p *packet.Packet, tr *nat.Translation) bool {
	return p.Kind == packet.TCP && g.severed[tr.Uplink].Load() && !tr.Turned
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
