package tapgw

import (
	"net/netip"
	"slices"
	"time"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Bounds of what is expected.
const (
	maxRelated        = 4096 // related sessions at once
	maxRelatedOfOne   = 64   // of one control session; more take the place of the oldest
	relatedTime       = 5 * time.Minute
	firstOrdinaryPort = 1024 // services below belong to the system, and no client asks to be called there
)

// expectation is what a related session will be known by: its outside endpoint where the remote begins, and inside host and
// remote endpoint where the inside does.
type expectation struct {
	proto, uplink uint8 // the uplink is 0 where the inside begins
	addr, remote  packet.Addr
	port          uint16
}

// related is a session that a control session announced.
type related struct {
	key        expectation
	owner      *control
	remote     netip.AddrPort // who may begin; no address, no port: any
	reserved   nat.Reservation
	isReserved bool // the remote may begin
	until      nat.Tick
}

// reserve is the helper.Reserve of a control session, called while c.mu is held.
func (c *control) reserve(r helper.Related) (netip.AddrPort, bool) {
	outside, ok := c.owner.announce(c, r)
	if ok {
		c.owner.count.announced.Add(1)
	} else {
		c.owner.count.refused.Add(1)
	}
	return outside, ok
}

func (h *helpers) announce(c *control, r helper.Related) (netip.AddrPort, bool) {
	s := &c.session
	if packet.AddrOf(r.Inside.Addr()) != s.Inside {
		return netip.AddrPort{}, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Inside.Port() == 0 {
		key := expectation{proto: r.Proto, addr: s.Inside, remote: packet.AddrOf(r.Remote.Addr()), port: r.Remote.Port()}
		return netip.AddrPortFrom(s.Outside.Netip(), 0), h.expect(&related{key: key, owner: c}, c.now)
	}
	own := r.Proto == s.Proto && r.Inside.Port() == s.InsidePort
	hasPorts := r.Proto == packet.ProtoTCP || r.Proto == packet.ProtoUDP
	if hasPorts && !own && r.Inside.Port() < firstOrdinaryPort {
		return netip.AddrPort{}, false
	}
	if r.Proto == packet.ProtoGRE {
		return h.announceCall(s, r, c.now)
	}
	return h.announceMapped(c, r)
}

// announceMapped maps what the remote may speak to first. h.mu is held.
func (h *helpers) announceMapped(c *control, r helper.Related) (outside netip.AddrPort, ok bool) {
	reserved, err := h.reserve(c, r)
	if err != nil {
		return outside, false
	}
	for i, one := range reserved {
		key := expectation{proto: r.Proto, uplink: c.session.Uplink, addr: one.Outside, port: one.OutsidePort}
		if !h.expect(&related{key: key, owner: c, remote: r.Remote, reserved: one, isReserved: true}, c.now) {
			for _, left := range reserved[i:] {
				h.table.Cancel(left, c.now)
			}
			return outside, false
		}
	}
	return netip.AddrPortFrom(reserved[0].Outside.Netip(), reserved[0].OutsidePort), true
}

// reserve makes the mappings of a related session, on the uplink and the address of its control session.
func (h *helpers) reserve(c *control, r helper.Related) ([]nat.Reservation, error) {
	s := &c.session
	b := h.binding(s)
	if r.Pair {
		pair, err := h.table.ReservePair(r.Proto, s.Inside, r.Inside.Port(), b, c.now)
		return pair[:], err
	}
	one, err := h.table.Reserve(r.Proto, s.Inside, r.Inside.Port(), b, c.now)
	return []nat.Reservation{one}, err
}

// binding is that of what is related to a control session.
func (h *helpers) binding(s *nat.Translation) nat.Binding {
	b := h.at(s.Uplink, s.Outside)
	b.Uplink, b.Generation, b.Reason = s.Uplink, s.Generation, uint8(policy.ReasonRelated)
	return b
}

// expect notes a related session, in the place of what was announced before for the same endpoint. h.mu is held.
func (h *helpers) expect(r *related, now nat.Tick) bool {
	r.until = now + nat.TickOf(relatedTime)
	old := h.expected[r.key]
	if old == nil && len(h.expected) >= maxRelated {
		return false
	}
	if old != nil {
		h.forget(old, now)
	} else if len(r.owner.waiting) >= maxRelatedOfOne {
		h.forget(r.owner.waiting[0], now)
	}
	h.expected[r.key] = r
	r.owner.waiting = append(r.owner.waiting, r)
	h.waiting.Store(int32(len(h.expected)))
	return true
}

// forget ends an expectation. h.mu is held.
func (h *helpers) forget(r *related, now nat.Tick) {
	delete(h.expected, r.key)
	h.waiting.Store(int32(len(h.expected)))
	c := r.owner
	if i := slices.Index(c.waiting, r); i >= 0 {
		c.waiting = slices.Delete(c.waiting, i, i+1)
	}
	if r.isReserved {
		h.table.Cancel(r.reserved, now)
	}
}

// admits reports whether a remote may begin the related session.
func (r *related) admits(k nat.InKey) bool {
	if a := r.remote.Addr(); a.IsValid() && packet.AddrOf(a) != k.Remote {
		return false
	}
	return r.remote.Port() == 0 || r.remote.Port() == k.RemotePort
}

// acceptRelated opens the related session that a packet from outside begins; 0 when none is expected there.
func (g *Gateway) acceptRelated(u *uplinks.Uplink, key nat.InKey, now nat.Tick) nat.Ref {
	h := g.helpers
	if h.waiting.Load() == 0 {
		return 0
	}
	inside, _, ok := g.table.Inside(key)
	if !ok {
		return 0
	}
	b := g.view.Load().binding(u, policy.ReasonRelated, g.hop(inside), inside, key.Remote)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.expected[expectation{proto: key.Proto, uplink: key.Uplink, addr: key.Outside, port: key.OutsidePort}]
	if r == nil || !r.admits(key) {
		return 0
	}
	ref, err := g.table.Accept(key, b, now)
	if err != nil {
		return 0
	}
	h.forget(r, now)
	h.count.opened.Add(1)
	return ref
}

// openRelated opens the related session that the inside begins, on the uplink and the address of its control session; 0 when
// none is expected, or that uplink is not to be used now.
func (g *Gateway) openRelated(v *view, key nat.Key, hop uint8, now nat.Tick) (nat.Ref, *uplinks.Uplink) {
	h := g.helpers
	if h.waiting.Load() == 0 {
		return 0, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r, u := g.expectedBy(v, key)
	if u == nil {
		return 0, nil
	}
	s := &r.owner.session
	b := v.at(u.ID, s.Outside)
	b.Uplink, b.Generation, b.Reason, b.Hop, b.Turned = u.ID, u.Generation, uint8(policy.ReasonRelated), hop, v.leads(key.Remote)
	ref, err := g.table.Open(key, b, now)
	if err != nil {
		return 0, nil
	}
	h.forget(r, now)
	h.count.opened.Add(1)
	return ref, u
}

// expectedBy returns the related session that the inside begins with key, and the uplink of its control session, nil when that is not
// to be used now. h.mu is held.
func (g *Gateway) expectedBy(v *view, key nat.Key) (*related, *uplinks.Uplink) {
	r := g.helpers.expected[expectation{proto: key.Proto, addr: key.Inside, remote: key.Remote, port: key.RemotePort}]
	if r == nil {
		return nil, nil
	}
	s := &r.owner.session
	u := v.ByID(s.Uplink)
	if u == nil || !u.Ready() || u.Generation != s.Generation || g.Avoids(u) {
		return nil, nil
	}
	return r, u
}

// announced is the uplink that openRelated would use, nil for none.
func (g *Gateway) announced(o *opening) *uplinks.Uplink {
	g.helpers.mu.Lock()
	defer g.helpers.mu.Unlock()
	_, u := g.expectedBy(o.v, o.key)
	return u
}

// SweepHelpers forgets the control sessions that have ended, with what they announced, and what did not come in time.
func (g *Gateway) SweepHelpers(now nat.Tick) {
	h := g.helpers
	h.mu.Lock()
	defer h.mu.Unlock()
	for ref, c := range h.controls {
		tr := h.table.Translation(ref)
		if tr.State.Live() && fixed(tr) == c.session {
			continue
		}
		delete(h.controls, ref)
		for len(c.waiting) > 0 {
			h.forget(c.waiting[0], now)
		}
	}
	for _, r := range h.expected {
		if r.until.Since(now) >= 0 {
			h.forget(r, now)
		}
	}
}
