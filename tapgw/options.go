package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// TCPOptions are what the user may choose about TCP.
type TCPOptions struct {
	ClampMSS bool // lower the maximum segment size of connections to what their uplink takes
	Adopt    bool // open a session with a segment in the middle of a connection, instead of resetting it
}

// SetTCP replaces the options, for the packets from now on.
func (g *Gateway) SetTCP(o TCPOptions) { g.tcp.Store(&o) }

// mayOpen reports whether a segment from inside may open a session: a SYN, or where the user wants that, or nothing can have changed,
// whatever belongs to a connection that goes on.
func (g *Gateway) mayOpen(p *packet.Packet) bool {
	switch p.TCPFlags & (packet.SYN | packet.ACK | packet.RST) {
	case packet.SYN:
		return true
	case packet.ACK:
		return g.tcp.Load().Adopt || g.adopts(p.Src)
	}
	return false
}

// clamp fits the segment size that a SYN or its answer announces to an uplink, in either direction.
func (g *Gateway) clamp(b []byte, p *packet.Packet, u *uplinks.Uplink) {
	if p.TCPFlags&packet.SYN != 0 && g.tcp.Load().ClampMSS {
		nat.ClampMSS(b[packet.VnetLen:], p, u.MTU, packet.VnetHeader(b).NeedsCsum())
	}
}
