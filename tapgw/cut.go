package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/uplinks"
)

// fit cuts what exceeds the MTU of its uplink and may be cut (RFC 4787 REQ-13): the frame itself, and held fragments that
// follow it. p.Src was inside before the translation.
func (g *Gateway) fit(b []byte, p *packet.Packet, inside packet.Addr, res Result) Result {
	u := g.view.Load().ByID(res.Uplink)
	if u == nil {
		return res
	}
	if exceeds(b, p, u) {
		if p.Src != inside && !isFragment(b, p) {
			g.table.SpreadID(b[packet.VnetLen:], p, inside)
		}
		if res.Pieces = packet.Cut(b, p, u.MTU); res.Pieces == nil {
			return g.drop(TooBig)
		}
	}
	if len(res.Released) > 0 {
		res.Released = cutHeld(res.Released, u)
	}
	return res
}

// cutHeld is the fragments with those cut further that exceed the MTU.
func cutHeld(held [][]byte, u *uplinks.Uplink) (list [][]byte) {
	for _, b := range held {
		var p packet.Packet
		if p.Decode(b[packet.VnetLen:]); exceeds(b, &p, u) {
			list = append(list, packet.Cut(b, &p, u.MTU)...)
			continue
		}
		list = append(list, b)
	}
	return list
}

// exceeds reports whether a frame is too large for an uplink; super-packets are cut by the device.
func exceeds(b []byte, p *packet.Packet, u *uplinks.Uplink) bool {
	return int(p.Len) > u.MTU && packet.VnetHeader(b).GSOType() == packet.GSONone
}

// isFragment reports whether a frame is one, also when p says what a whole packet with this header would be.
func isFragment(b []byte, p *packet.Packet) bool {
	at := p.Place(b[packet.VnetLen:])
	return at.More || at.Offset > 0
}
