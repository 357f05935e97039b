package tapgw

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// services are the UDP ports on which programs of the host listen at no address in particular. Their answers come out of the
// TAP, as the route says, and must leave as if it were not there: from the port and address that were spoken to.
type services struct {
	all     packet.PortSet
	visible packet.PortSet // those of which the host's stack sees the packets itself
}

// SetServices replaces the UDP ports of the host's services: the visible ones lie outside the pool of NAT, packets to the
// hidden ones reach the host only by being given back.
func (g *Gateway) SetServices(visible, hidden []uint16) {
	s := new(services)
	for _, port := range visible {
		s.visible.Add(port)
	}
	for _, port := range slices.Concat(visible, hidden) {
		s.all.Add(port)
	}
	g.services.Store(s)
}

// request notes by which uplink a remote spoke to a service; visible is whether the host has the packet already. A session
// of the two ends, or the kernel would go on to send the answers by that.
func (g *Gateway) request(p *packet.Packet, uplink uint8, now nat.Tick) (visible bool) {
	s := g.services.Load()
	if p.Kind != packet.UDP || !s.all.Has(p.DstPort) {
		return false
	}
	v := g.view.Load()
	home := v.homeOf(uplink, p.Dst)
	u := v.ByID(home)
	g.remotes.note(client{p.Src, p.SrcPort, p.DstPort}, spoken{p.Dst, home, u != nil && u.State == uplinks.Down, now})
	g.table.End(nat.Key{Inside: g.ends.Load().host, Remote: p.Src, InsidePort: p.DstPort, RemotePort: p.SrcPort, Proto: p.Proto}, now)
	return s.visible.Has(p.DstPort)
}

// Request notes that a remote spoke to a service of the host, which has the frame already.
func (g *Gateway) Request(b []byte, uplink uint8, now nat.Tick) {
	if len(b) < packet.VnetLen {
		return
	}
	var p packet.Packet
	if p.Decode(b[packet.VnetLen:]); p.IPv6 == g.cfg.IPv6 {
		g.request(&p, uplink, now)
	}
}

// fromService reports whether a packet may be the answer of a service.
func (g *Gateway) fromService(p *packet.Packet) bool {
	return p.Kind == packet.UDP && p.Src == g.ends.Load().host && g.services.Load().all.Has(p.SrcPort)
}

// response returns how a packet of the host leaves when it answers a request: by the uplink where that remote was last
// seen, which must still be of use, as one is too whose probes fail, but not what a remote asks by it.
func (g *Gateway) response(p *packet.Packet, now nat.Tick) (tr nat.Translation, u *uplinks.Uplink) {
	if !g.fromService(p) {
		return tr, nil
	}
	at, ok := g.remotes.find(client{p.Dst, p.DstPort, p.SrcPort}, now)
	if !ok {
		return tr, nil
	}
	v := g.view.Load()
	u = v.ByID(at.uplink)
	if u == nil || !u.Ready() || !slices.Contains(v.addresses[u.ID], at.local) {
		return tr, nil
	}
	if u.State == uplinks.Down && !at.down && g.anotherUsable(u) {
		return tr, nil
	}
	key, _ := nat.KeyOf(p)
	return nat.Translation{Key: key, Outside: at.local, OutsidePort: p.SrcPort, Uplink: u.ID, Generation: u.Generation}, u
}

// lateResponse is response for a packet without a session: the host may have been faster with its answer than we with our
// copy of the request.
func (g *Gateway) lateResponse(p *packet.Packet, now nat.Tick) (tr nat.Translation, u *uplinks.Uplink) {
	if !g.fromService(p) {
		return tr, nil
	}
	g.cfg.Settle()
	return g.response(p, now)
}

// respond sends a packet of the host as response says. There is no session, as remotes that the host answers could fill
// the table.
func (g *Gateway) respond(b []byte, p *packet.Packet, tr *nat.Translation, u *uplinks.Uplink, now nat.Tick) Result {
	if tooBig(b, p, u) {
		return g.refuse(TooBig, b, p, u.MTU, now)
	}
	if !nat.RewriteOut(b[packet.VnetLen:], p, tr, packet.VnetHeader(b).NeedsCsum()) {
		return g.drop(BadPacket)
	}
	return Result{Verdict: Send, Uplink: u.ID}
}

// client is a remote endpoint and the port of the host that it spoke to.
type client struct {
	addr          packet.Addr
	port, service uint16
}

// spoken is how a client last spoke to its service.
type spoken struct {
	local  packet.Addr // address that it used
	uplink uint8
	down   bool // the uplink was said to be, so that its probes are no evidence
	at     nat.Tick
}

const (
	remoteBuckets = 512 // power of two
	remoteSlots   = 8   // of a bucket

	// remoteLife is how long a remote is remembered, as long as RFC 4787 REQ-5 wants for a mapping.
	remoteLife = 5 * time.Minute
)

// remotes remembers the latest clients of services, a fixed number of them.
type remotes struct {
	seed    maphash.Seed
	buckets [remoteBuckets]struct {
		mu      sync.Mutex
		clients [remoteSlots]client
		spoken  [remoteSlots]spoken
	}
}

func newRemotes() *remotes { return &remotes{seed: maphash.MakeSeed()} }

// note remembers a client in place of the one that was silent the longest.
func (r *remotes) note(c client, s spoken) {
	b := &r.buckets[maphash.Comparable(r.seed, c)%remoteBuckets]
	b.mu.Lock()
	defer b.mu.Unlock()
	slot, longest := 0, time.Duration(math.MinInt64)
	for i := range b.clients {
		silent := b.spoken[i].at.Since(s.at)
		switch b.clients[i] {
		case c:
			b.spoken[i] = s
			return
		case client{}:
			silent = math.MaxInt64
		}
		if silent > longest {
			slot, longest = i, silent
		}
	}
	b.clients[slot], b.spoken[slot] = c, s
}

// find returns how a client spoke to its service within the last remoteLife.
func (r *remotes) find(c client, now nat.Tick) (s spoken, ok bool) {
	b := &r.buckets[maphash.Comparable(r.seed, c)%remoteBuckets]
	b.mu.Lock()
	defer b.mu.Unlock()
	slot := slices.Index(b.clients[:], c)
	if slot < 0 || b.spoken[slot].at.Since(now) > remoteLife {
		return s, false
	}
	return b.spoken[slot], true
}
