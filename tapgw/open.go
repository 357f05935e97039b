package tapgw

import (
	"slices"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// open opens a session, which a helper follows if it is a control session. One that was tried in vain by a set of uplinks, one
// bit each, moves: to a healthy one, or not at all.
func (g *Gateway) open(r *ruled, key nat.Key, bound bool, tried uint32, now nat.Tick) (nat.Ref, *uplinks.Uplink, Reason) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.helpers.wanted(key)
	o := opening{ruled: r, v: g.view.Load(), key: key, hop: g.ways.Hop(key.Inside), helped: one != nil || g.teaches(key), tried: tried, now: now}
	if bound {
		o.hop = nat.HopDevice
	}
	ref, u, why := g.place(&o)
	if one != nil && why == NoReason {
		g.helpers.follow(ref, one)
	}
	return ref, u, why
}

// opening is a session that is about to be bound to an uplink.
type opening struct {
	*ruled
	v      *view
	key    nat.Key
	hop    uint8
	helped bool
	tried  uint32
	now    nat.Tick

	together policy.StickyKey // of the sessions that it belongs to
	sticks   bool             // there may be some

	group   int  // that the candidates are of
	explain bool // nothing is opened, and no scheduler's turn is used up
}

// place binds a new session to an uplink: the one its endpoint is mapped on, else that of the control session which announced
// it, else the one chosen for it among the group that the rules name. Where an address without ports is taken, another uplink is
// tried.
func (g *Gateway) place(o *opening) (nat.Ref, *uplinks.Uplink, Reason) {
	if id, why, ok := g.byResolver(o); ok {
		if why != NoReason {
			return 0, nil, why
		}
		ref, why := g.try(o, id, policy.ReasonResolver)
		return ref, o.v.ByID(id), why
	}
	if id, ok := g.mapped(o); ok {
		ref, why := g.try(o, id, policy.ReasonMapping)
		if why != NoPort || nat.HasPorts(o.key.Proto) {
			return ref, o.v.ByID(id), why
		}
		return g.placeElsewhere(o, id)
	}
	if ref, u := g.openRelated(o.v, o.key, o.hop, o.now); ref != 0 {
		g.meters[u.ID].Charge()
		return ref, u, NoReason
	}
	why := g.consider(o)
	return g.placeAmong(o, why)
}

// placeElsewhere places a session that an uplink has no address for.
func (g *Gateway) placeElsewhere(o *opening, full uint8) (nat.Ref, *uplinks.Uplink, Reason) {
	if why := g.consider(o); why != NoReason {
		return 0, nil, why
	}
	g.passOver(full)
	return g.placeAmong(o, NoPort)
}

// mapped returns the uplink that the endpoint is mapped on, if it can be used: a mapping counts for all remotes (RFC 4787 REQ-1), and
// so for more than rules can say.
func (g *Gateway) mapped(o *opening) (id uint8, ok bool) {
	if id, ok = g.table.Bound(o.key.Proto, o.key.Inside, o.key.InsidePort); !ok || g.leaves(o.key, id) {
		return 0, false
	}
	everything := ruled{routing: o.routing, rule: policy.NoRule, action: o.ActionOf(policy.NoRule)}
	g.listCandidates(o.v, &everything, o.key.Inside, o.tried)
	return id, g.isCandidate(id)
}

// consider lists the candidates, or says why there are none.
func (g *Gateway) consider(o *opening) (why Reason) {
	if shunned := g.watch.suspects.Load() | o.tried; shunned != 0 {
		o.group, why = g.listCandidates(o.v, o.ruled, o.key.Inside, shunned)
		if why == NoReason || o.tried != 0 {
			return why
		}
	}
	o.group, why = g.listCandidates(o.v, o.ruled, o.key.Inside, 0)
	return why
}

// placeAmong binds a session to the uplink chosen for it, and to the next as long as one has no port. Where no candidate
// is left it says why the last one refused.
func (g *Gateway) placeAmong(o *opening, why Reason) (nat.Ref, *uplinks.Uplink, Reason) {
	for len(g.candidates) > 0 {
		id, reason := g.choose(o)
		var ref nat.Ref
		if ref, why = g.try(o, id, reason); why == NoReason {
			g.meters[id].Charge()
			g.keep(o, id, ref)
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
	if reason != policy.ReasonMapping {
		b.Rule = o.number()
	}
	if o.tried != 0 {
		b.Move, b.Reason = true, uint8(policy.ReasonRebind)
	}
	ref, err := g.table.Open(o.key, b, o.now)
	why := refusal(err)
	if why == NoPort {
		g.passOver(id)
	}
	return ref, why
}

// choose picks one of the candidates: where another session of the same hosts is, for one without ports; where those are that
// it belongs to; else as the scheduler decides.
func (g *Gateway) choose(o *opening) (uint8, policy.Reason) {
	if id, ok := g.companion(o.key); ok {
		return id, policy.ReasonCompanion
	}
	s := o.scheduler(o.group)
	if id, ok := g.stuck(o, s); ok {
		return id, policy.ReasonSticky
	}
	if o.explain {
		s = policy.Clone(s)
	}
	d, _ := policy.Decide(s, policy.Request{Source: o.key.Inside.Hi ^ o.key.Inside.Lo}, g.candidates)
	if o.group != o.action.Group {
		d.Reason = policy.ReasonNextGroup
	}
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

// preferences say which uplinks may carry a new session, each only when those before find none: those in order; those degraded;
// those not judged yet; those where somebody must sign in, as that has to pass; those whose probes fail but never succeeded either, since the probes alone may be what is filtered.
var preferences = [...]func(*uplinks.Uplink) bool{
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Up },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Degraded },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Probing },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Portal },
	func(u *uplinks.Uplink) bool { return u.State == uplinks.Down && u.Unproven },
}

// listCandidates fills g.candidates with the uplinks of a group that have an address for the inside host: of the first preference
// that finds any there, or in a group that is asked when it is down; of the usable ones alone where some, one bit each, are shunned.
// It says which group they are of, or why there are none.
func (g *Gateway) listCandidates(v *view, r *ruled, inside packet.Addr, shunned uint32) (group int, why Reason) {
	g.candidates = g.candidates[:0]
	why = GroupDown
	worst := len(preferences)
	if shunned != 0 {
		worst = 1
	}
	for _, prefers := range preferences[:worst] {
		r.Chain(&r.action, func(index int) bool {
			group = index
			if group == policy.Everything {
				why = NoUplink
			}
			g.listGroup(v, &r.Groups[index], inside, func(u *uplinks.Uplink) bool { return shunned&(1<<u.ID) == 0 && prefers(u) })
			return len(g.candidates) > 0
		})
		if len(g.candidates) > 0 {
			return group, NoReason
		}
	}
	return r.action.Group, why
}

func (g *Gateway) listGroup(v *view, group *policy.Group, inside packet.Addr, prefers func(*uplinks.Uplink) bool) {
	for _, u := range v.Uplinks {
		tier, member := group.Tier(u.Rank(), u.Name, u.Interface)
		if member && v.serves(u.ID, inside) && u.Ready() && prefers(u) {
			g.addCandidate(v, u, tier)
		}
	}
}

func (g *Gateway) addCandidate(v *view, u *uplinks.Uplink, tier int) {
	g.candidates = append(g.candidates, policy.Candidate{
		ID: u.ID, Weight: u.Weight, Tier: tier,
		Sessions: g.cfg.Sessions(u.ID),
		Capacity: v.capacity[u.ID],
		Load:     g.meters[u.ID].Load(),
		Rate:     g.meters[u.ID].Expect(g.cfg.Connections(u.ID)) * delivered(u.Health.Loss),
		Latency:  u.Health.RTT,
	})
}

// delivered is the share that arrives and need not be sent again. A probe or two that are lost by chance are nothing to choose by.
func delivered(loss float64) float64 {
	const chance = 0.04
	return min(1-loss+chance, 1)
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
