package tapgw

import (
	"encoding/binary"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
)

const (
	// stickyIdle is how long after its last new session a client is expected back at a site as whom it was.
	stickyIdle = 15 * time.Minute
	portHTTPS  = 443
	maxKey     = 512 // bytes, of what sessions that belong together have in common
)

// stickiness is that of a session: by default a web site sees a client always at one address, as many sign out who come
// from another, and everything else is spread.
func (o *opening) stickiness() policy.Stickiness {
	switch s := o.action.Stickiness; {
	case s == policy.StickySite, s == policy.StickyClient:
		return s
	case s == policy.StickyAuto && o.key.RemotePort == portHTTPS && (o.key.Proto == packet.ProtoTCP || o.key.Proto == packet.ProtoUDP):
		return policy.StickySite
	}
	return policy.StickySession
}

// together finds what a session has in common with those that it belongs to: client, group, and perhaps site.
func (g *Gateway) together(o *opening) {
	how := o.stickiness()
	if how == policy.StickySession {
		return
	}
	if g.sticky == nil {
		g.sticky = policy.NewSticky(uint32(nat.TickOf(stickyIdle)))
	}
	var client [16]byte
	var common [maxKey]byte
	rest := append(append(common[:0], o.Groups[o.action.Group].Name...), 0)
	if how == policy.StickySite {
		rest = g.appendSite(rest, o)
	}
	o.together, o.sticks = g.sticky.Key(appendAddr(client[:0], o.key.Inside), rest), true
}

// appendSite appends the site that a session goes to: what its owner has registered of the name, or the network where the
// name is not known.
func (g *Gateway) appendSite(b []byte, o *opening) []byte {
	if book := g.names.Load(); book != nil {
		if site, ok := book.Site(o.key.Inside, o.key.Remote, uint32(o.now)); ok {
			return append(b, site...)
		}
	}
	remote := o.key.Remote
	if remote.Is4() {
		remote.Lo &^= 0xff // a /24
	} else {
		remote = packet.Addr{Hi: remote.Hi &^ 0xffff} // a /48
	}
	return appendAddr(append(b, 0), remote) // no name begins so
}

func appendAddr(b []byte, a packet.Addr) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, a.Hi), a.Lo)
}

// stuck returns the candidate that the sessions use to which a new one belongs, if it is as good as the others: of the same
// tier where tiers count. What is degraded is no candidate where something is not.
func (g *Gateway) stuck(o *opening, s policy.Scheduler) (id uint8, ok bool) {
	g.together(o)
	if !o.sticks {
		return 0, false
	}
	id, ok = g.sticky.Find(o.together, uint32(o.now), g.lives(o))
	for i := range g.candidates {
		if c := &g.candidates[i]; ok && c.ID == id {
			return id, policy.Considers(s, g.candidates, i)
		}
	}
	return 0, false
}

// keep remembers the uplink of a session for those that belong to it.
func (g *Gateway) keep(o *opening, id uint8, ref nat.Ref) {
	if o.sticks {
		g.sticky.Keep(o.together, id, uint32(ref), uint32(o.now), g.lives(o))
	}
}

// lives reports whether a session of the client of o is still one.
func (g *Gateway) lives(o *opening) func(session uint32) bool {
	return func(session uint32) bool {
		tr := g.table.Translation(nat.Ref(session))
		return tr.State.Live() && tr.Inside == o.key.Inside
	}
}
