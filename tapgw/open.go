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
	ref, u, why := g.place(key, bound, one != nil, now)
	if one != nil && why == NoReason {
		g.helpers.follow(ref, one)
	}
	return ref, u, why
}

// place binds a new session to an uplink: the one its endpoint is mapped on, else that of the control session which announced
// it, else the scheduler's choice. Without ports it goes where another session of the same hosts is, before it is chosen for, and
// where the address is taken, by another uplink.
func (g *Gateway) place(key nat.Key, bound, helped bool, now nat.Tick) (nat.Ref, *uplinks.Uplink, Reason) {
	v := g.view.Load()
	g.listCandidates(v, key.Inside)
	hop := g.ways.Hop(key.Inside)
	if bound {
		hop = nat.HopDevice
	}
	binding := func(u *uplinks.Uplink, why policy.Reason) nat.Binding {
		b := v.binding(u, why, hop, key.Inside, key.Remote)
		b.Helped = helped
		return b
	}
	why := NoUplink
	if id, ok := g.table.Bound(key.Proto, key.Inside, key.InsidePort); ok && g.isCandidate(id) {
		u := v.ByID(id)
		ref, err := g.table.Open(key, binding(u, policy.ReasonMapping), now)
		if why = refusal(err); why != NoPort || nat.HasPorts(key.Proto) {
			return ref, u, why
		}
		g.passOver(id)
	}
	if ref, u := g.openRelated(v, key, hop, now); ref != 0 {
		g.meters[u.ID].Charge()
		return ref, u, NoReason
	}
	if id, ok := g.companion(key); ok {
		u := v.ByID(id)
		ref, err := g.table.Open(key, binding(u, policy.ReasonCompanion), now)
		if err == nil {
			g.meters[u.ID].Charge()
		}
		if why = refusal(err); why != NoPort {
			return ref, u, why
		}
		g.passOver(id)
	}
	for len(g.candidates) > 0 {
		d, _ := policy.Decide(g.scheduler, g.candidates)
		u := v.ByID(g.candidates[d.Index].ID)
		ref, err := g.table.Open(key, binding(u, d.Reason), now)
		if err == nil {
			g.meters[u.ID].Charge()
			return ref, u, NoReason
		}
		if why = refusal(err); why != NoPort {
			break
		}
		g.candidates = append(g.candidates[:d.Index], g.candidates[d.Index+1:]...)
	}
	return 0, nil, why
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
			if addresses, _ := v.outside(u.ID, inside); len(addresses) > 0 && u.Ready() && prefers(u) {
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
		Sessions: g.table.SessionsOn(u.ID),
		Capacity: v.capacity[u.ID],
		Load:     g.meters[u.ID].Load(),
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
	addresses, exact := v.outside(u.ID, inside)
	return nat.Binding{
		Uplink: u.ID, Generation: u.Generation, Addresses: addresses, Exact: exact, Reason: uint8(why), Hop: hop,
		Turned: v.Owner(remote.Netip()) != nil,
	}
}
