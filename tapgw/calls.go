package tapgw

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// maxCalls bounds the calls that are remembered; the packets of more are told apart by their hosts alone.
const maxCalls = 1024

// call is a call of PPTP as packets from the inside name it: by the identifier that the remote chose (RFC 2637 §4.1).
type call struct {
	inside, remote packet.Addr
	id             uint16
}

// key is that of the call's session, which is known by the identifier that the inside chose.
func (c call) key(own uint16) nat.Key {
	return nat.Key{Inside: c.inside, InsidePort: own, Remote: c.remote, Proto: packet.ProtoGRE}
}

// calls finds the identifier of the inside by that of the remote, as control connections have told them.
type calls struct {
	mu    sync.Mutex
	known atomic.Pointer[map[call]uint16]
}

// learn remembers a call, in the place of those whose session has ended.
func (c *calls) learn(one call, own uint16, table *nat.Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := make(map[call]uint16)
	if old := c.known.Load(); old != nil {
		maps.Copy(known, *old)
	}
	maps.DeleteFunc(known, func(k call, own uint16) bool { return table.FindOut(k.key(own)) == 0 })
	if len(known) < maxCalls {
		known[one] = own
	}
	c.known.Store(&known)
}

func (c *calls) find(one call) (own uint16, ok bool) {
	known := c.known.Load()
	if known == nil {
		return 0, false
	}
	own, ok = (*known)[one]
	return own, ok
}

// announceCall opens the session of a call that a control session announces, and says by which identifier it is known outside.
// The session is there before the first packet, as both ends may send it.
func (h *helpers) announceCall(control *nat.Translation, r helper.Related, now nat.Tick) (outside netip.AddrPort, ok bool) {
	one := call{packet.AddrOf(r.Inside.Addr()), packet.AddrOf(r.Remote.Addr()), r.Remote.Port()}
	if one.inside != control.Inside || one.remote != control.Remote {
		return outside, false
	}
	ref, err := h.table.Open(one.key(r.Inside.Port()), h.binding(control), now)
	if err != nil {
		return outside, false
	}
	if one.id != 0 {
		h.calls.learn(one, r.Inside.Port(), h.table)
	}
	tr := h.table.Translation(ref)
	return netip.AddrPortFrom(tr.Outside.Netip(), tr.OutsidePort), true
}

// callOut finds the call that a packet from the inside belongs to. One of no call is as any other without ports.
func (g *Gateway) callOut(p *packet.Packet) {
	if p.Kind != packet.Call {
		return
	}
	one := call{p.Src, p.Dst, p.DstPort}
	if own, ok := g.helpers.calls.find(one); ok && g.table.FindOut(one.key(own)) != 0 {
		p.SrcPort = own
		return
	}
	p.Kind, p.DstPort = packet.Portless, 0
}

// callIn is callOut for a packet that came in by an uplink, and names the identifier that we gave out.
func (g *Gateway) callIn(p *packet.Packet, uplink uint8) {
	if p.Kind != packet.Call {
		return
	}
	if key, _ := nat.InKeyOf(p, uplink); g.table.FindIn(key) == 0 {
		p.Kind, p.DstPort = packet.Portless, 0
	}
}
