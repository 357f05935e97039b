package tapgw

import (
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
)

// routing is the plan in force, with the schedulers' memory of whose turn it is.
type routing struct {
	*policy.Plan
	schedulers []policy.Scheduler // of the groups, then of the rules that have another than their group; guarded by Gateway.mu

	down   map[uint32]policy.OnUplinkDown // by the number of a rule that has its own
	resets bool                           // it may be policy.ResetTCP
}

// SetPlan replaces the groups and rules that sessions are placed by, for new ones. The error names a scheduler that there is not.
func (g *Gateway) SetPlan(p *policy.Plan) error {
	r := &routing{Plan: p}
	r.indexDown()
	for i := range p.Groups {
		s, err := policy.New(p.Groups[i].Scheduler)
		if err != nil {
			return err
		}
		r.schedulers = append(r.schedulers, s)
	}
	for i := range p.Rules {
		a := &p.Rules[i].Action
		if a.Scheduler == p.Groups[a.Group].Scheduler {
			r.schedulers = append(r.schedulers, nil)
			continue
		}
		s, err := policy.New(a.Scheduler)
		if err != nil {
			return err
		}
		r.schedulers = append(r.schedulers, s)
	}
	g.routing.Store(r)
	return nil
}

// indexDown makes it quick to tell what becomes of the sessions of a rule.
func (r *routing) indexDown() {
	r.resets, r.down = r.OnUplinkDown == policy.ResetTCP, make(map[uint32]policy.OnUplinkDown)
	for i := range r.Rules {
		rule := &r.Rules[i]
		if what := rule.Action.OnUplinkDown; rule.Number != 0 && what != "" {
			r.down[rule.Number] = what
			r.resets = r.resets || what == policy.ResetTCP
		}
	}
}

// onUplinkDown is what becomes of TCP sessions that a rule placed, by its number. Those of a rule that is gone are like all others.
func (r *routing) onUplinkDown(rule uint32) policy.OnUplinkDown {
	if what, own := r.down[rule]; own {
		return what
	}
	return r.OnUplinkDown
}

// SetTime tells what time it is where the user is, for rules that depend on it.
func (g *Gateway) SetTime(local time.Time) { g.minute.Store(uint32(policy.MinuteOf(local))) }

// ruled is a session with what the rules say about it.
type ruled struct {
	*routing
	session policy.Session
	rule    int // index of the one that matches, or policy.NoRule
	action  policy.Action
}

// number is the rule's for the session table.
func (r *ruled) number() uint32 {
	if r.rule == policy.NoRule {
		return 0
	}
	return r.Rules[r.rule].Number
}

// scheduler is that of a group for the session. g.mu is held.
func (r *ruled) scheduler(group int) policy.Scheduler {
	if group == r.action.Group && r.rule != policy.NoRule {
		if own := r.schedulers[len(r.Groups)+r.rule]; own != nil {
			return own
		}
	}
	return r.schedulers[group]
}

// judge finds the rule for a session.
func (g *Gateway) judge(s policy.Session) ruled {
	r := ruled{routing: g.routing.Load(), session: s}
	r.rule = r.Find(&r.session, &g.cfg.Facts)
	r.action = r.ActionOf(r.rule)
	return r
}

// sessionOf is what rules see of a packet from the inside, and of the session that it may begin.
func (g *Gateway) sessionOf(b []byte, p *packet.Packet) policy.Session {
	s := g.sessionOfKey(nat.Key{Inside: p.Src, Remote: p.Dst, InsidePort: p.SrcPort, RemotePort: p.DstPort, Proto: p.Proto})
	s.DSCP = p.DSCP(b[packet.VnetLen:])
	return s
}

// sessionOfKey is sessionOf for a session of which no packet is at hand.
func (g *Gateway) sessionOfKey(k nat.Key) policy.Session {
	s := policy.Session{
		Inside: k.Inside.Netip(), Remote: k.Remote.Netip(), Proto: k.Proto,
		Minute: policy.Minute(g.minute.Load()), Own: g.isHostItself(k.Inside),
	}
	if k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP {
		s.InsidePort, s.RemotePort = k.InsidePort, k.RemotePort
	}
	return s
}
