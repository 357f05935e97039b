package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// open opens a session, which a helper follows if it is a control session.
func (g *Gateway) open(key nat.Key, bound bool, now nat.Tick) (nat.Ref, *uplinks.Uplink, Reason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.helpers.wanted(key)
	ref, u, why := g.place(key, bound, one != nil || g.teaches(key), now)
	if one != nil && why == NoReason {
		g.helpers.follow(ref, one)
	}
	return ref, u, why
}

// opening is a session that is about to be bound to an uplink.
type opening struct {
	v      *view
	key    nat.Key
	hop    uint8
	helped bool
	now    nat.Tick
}

// place binds a new session to an uplink: the one its endpoint is mapped on, else that of the control session which announced
// it, else the one chosen for it. Where an address without ports is taken, another uplink is tried.
func (g *Gateway) place(key nat.Key, bound, helped bool, now nat.Tick) (nat.Ref, *uplinks.Uplink, Reason) {
	o := opening{g.view.Load(), key, g.ways.Hop(key.Inside), helped, now}
	if bound {
		o.hop = nat.HopDevice
	}
	g.listCandidates(o.v, key.Inside)
	why := NoUplink
	if id, ok := g.table.Bound(key.Proto, key.Inside, key.InsidePort); ok && g.isCandidate(id) {
		var ref nat.Ref
		if ref, why = g.try(&o, id, policy.ReasonMapping); why != NoPort || nat.HasPorts(key.Proto) {
			return ref, o.v.ByID(id), why
		}
	}
	if ref, u := g.openRelated(o.v, key, o.hop, now); ref != 0 {
		g.meters[u.ID].Charge()
		return ref, u, NoReason
	}
	return g.placeAnywhere(&o, why)
}

// placeAnywhere binds a session to the uplink chosen for it, and to the next as long as one has no port. Where no candidate
// is left it says why the last one refused.
func (g *Gateway) placeAnywhere(o *opening, why Reason) (nat.Ref, *uplinks.Uplink, Reason) {
	for len(g.candidates) > 0 {
		id, reason := g.choose(o.key)
		var ref nat.Ref
		if ref, why = g.try(o, id, reason); why == NoReason {
			g.meters[id].Charge()
		}
		if why != NoPort {
			return ref, o.v.ByID(id), why
		}
	}
	return 0, nil, why
}

// try opens a session on an uplink, which is no candidate any more if it has no port.
func (g *Gateway) try(o *opening, id uint8, reason policy.Reason) (nat.Ref, Reason) {
	b := o.v.binding(o.v.ByID(id), reason, o.hop, o.key.Inside, o.key.Remote)
	b.Helped = o.helped
	ref, err := g.table.Open(o.key, b, o.now)
	why := refusal(err)
	if why == NoPort {
		g.passOver(id)
	}
	return ref, why
}

// choose picks one of the candidates: where another session of the same hosts is, for one without ports, else as the
// scheduler decides.
func (g *Gateway) choose(key nat.Key) (uint8, policy.Reason) {
	if id, ok := g.companion(key); ok {
		return id, policy.ReasonCompanion
	}
	d, _ := policy.Decide(g.scheduler, policy.Request{Source: key.Inside.Hi ^ key.Inside.Lo}, g.candidates)
	return g.candidates[d.Index].ID, d.Reason
}

// companion returns the candidate that a session without ports must use, as another session of the same hosts is there.
func (g *Gateway) companion(key nat.Key) (id uint8, ok bool) {
	if nat.HasPorts(key.Proto) {
		return 0, false
	}
	id, ok = g.table.Companion(key.Inside, key.Remote)
	return id, ok && g.isCandidate(id)
}

// passOver makes an uplink no candidate for this session any more.
func (g *Gateway) passOver(id uint8) {
	g.candidates = slices.DeleteFunc(g.candidates, func(c policy.Candidate) bool { return c.ID == id })
}

// preferences say which uplinks may carry a new session, each only when those before find none: the usable ones; those not
// judged yet; those whose probes fail but never succeeded either, since the probes alone may be what is filtered.
var preferences = [...]func(*uplinks.Uplink) bool{
	func(u *uplinks.Uplink) bool { return u.State.Usable() },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Probing },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Down && u.Unproven },
}

// listCandidates fills g.candidates with the uplinks of the first preference that finds any with an address for the inside
// host.
func (g *Gateway) listCandidates(v *view, inside packet.Addr) {
	g.candidates = g.candidates[:0]
	for _, prefers := range preferences {
		for _, u := range v.Uplinks {
			if v.serves(u.ID, inside) && u.Ready() && prefers(u) {
				g.addCandidate(v, u)
			}
		}
		if len(g.candidates) > 0 {
			return
		}
	}
}

func (g *Gateway) addCandidate(v *view, u *uplinks.Uplink) {
	g.candidates = append(g.candidates, policy.Candidate{
		ID: u.ID, Weight: u.Weight, Tier: u.Tier,
		Sessions: g.cfg.Sessions(u.ID),
		Capacity: v.capacity[u.ID],
		Load:     g.meters[u.ID].Load(),
		Rate:     g.meters[u.ID].Expect(g.cfg.Connections(u.ID)),
		Latency:  u.Health.RTT,
	})
}

func (g *Gateway) isCandidate(id uint8) bool {
	for i := range g.candidates {
		if g.candidates[i].ID == id {
			return true
		}
	}
	return false
}

func (v *view) binding(u *uplinks.Uplink, why policy.Reason, hop uint8, inside, remote packet.Addr) nat.Binding {
	b := v.outside(u.ID, inside)
	b.Uplink, b.Generation, b.Reason, b.Hop = u.ID, u.Generation, uint8(why), hop
	b.Turned = v.leads(remote)
	return b
}
