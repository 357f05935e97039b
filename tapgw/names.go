package tapgw

import (
	"time"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/names"
	"tapgw/nat"
)

// portDomain is where servers of names are asked (RFC 1035 §4.2).
const portDomain = 53

// NewNames returns an empty book of names on the clock of the gateways.
func NewNames() *names.Book { return names.New(uint32(nat.TickOf(time.Minute))) }

// SetNames has names learned from what servers answer to inside hosts, in new sessions; nil for none. No program takes such
// a session for a hit.
func (g *Gateway) SetNames(b *names.Book) { g.names.Store(b) }

// teaches reports whether names are learned from a session to be opened.
func (g *Gateway) teaches(k nat.Key) bool {
	return k.RemotePort == portDomain && k.Proto == packet.ProtoUDP && g.names.Load() != nil
}

// learn reads a packet of a session with a server of names, as it came.
func (g *Gateway) learn(b []byte, p *packet.Packet, tr *nat.Translation, d helper.Direction, now nat.Tick) {
	book := g.names.Load()
	if book == nil || p.Kind != packet.UDP || isFragment(b, p) || packet.VnetHeader(b).GSOType() != packet.GSONone {
		return
	}
	if m := segmentOf(b, p); !m.isSound() {
		return
	}
	payload := b[packet.VnetLen+int(p.L4)+udpHeader : packet.VnetLen+int(p.L3)+int(p.Len)]
	s := names.Session{Client: tr.Inside, Server: tr.Remote, ClientPort: tr.InsidePort, ServerPort: tr.RemotePort}
	if d == helper.Outbound {
		book.Query(s, payload, uint32(now))
	} else {
		book.Answer(s, payload, uint32(now))
	}
}
