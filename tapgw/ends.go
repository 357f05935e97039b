package tapgw

import (
	"net/netip"
	"slices"

	"tapgw/internal/packet"
)

// ends are the two of the TAP: the host, and the imaginary router to which its default route leads.
type ends struct {
	host    packet.Addr
	earlier []packet.Addr // addresses of the host that its connections of before may still use
	router  netip.Addr
}

// SetHost replaces the host's address on the TAP. Of IPv6 it follows the prefixes of the uplinks, and is :: while there is none;
// what the host had before goes on to be its own.
func (g *Gateway) SetHost(host netip.Addr, earlier ...netip.Addr) {
	e := &ends{host: packet.AddrOf(host), router: g.cfg.GatewayIP}
	for _, a := range earlier {
		e.earlier = append(e.earlier, packet.AddrOf(a))
	}
	if g.cfg.IPv6 { // errors must reach hosts beyond the link
		e.router = packet.Addr{Hi: e.host.Hi, Lo: e.host.Lo ^ 1}.Netip()
	}
	g.ends.Store(e)
}

// isHostItself reports whether an inside address is the host's own on the TAP.
func (g *Gateway) isHostItself(inside packet.Addr) bool {
	e := g.ends.Load()
	return inside == e.host || slices.Contains(e.earlier, inside)
}

// routerAddr is who the errors come from that we make.
func (g *Gateway) routerAddr() netip.Addr { return g.ends.Load().router }
