package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Outcome is what would become of a session.
type Outcome string

// The outcomes.
const (
	Placed    Outcome = "placed"  // a new session, on the uplink that was chosen for it
	Known     Outcome = "session" // there is one already
	Mapped    Outcome = "mapping" // its endpoint has a mapping
	Announced Outcome = "related" // a control session announced it
	Direct    Outcome = "direct"  // leaves with the address that it has, as a rule says
	Own       Outcome = "own"     // leaves with the address that it has, which is the uplink's own
	Refused   Outcome = "refused" // its sender is told
)

// Explanation is what would become of the first packet of a session, and why.
type Explanation struct {
	Outcome Outcome
	Uplink  *uplinks.Uplink // nil when refused
	Reason  policy.Reason   // of Placed, Known
	Refused Reason

	Plan       *policy.Plan
	Rule       int            // index of the one that matches, or policy.NoRule
	Fails      []policy.Field // why each rule before it does not match; all rules when none does
	Action     policy.Action
	Group      int                // of the candidates: that of the action, or one that was asked instead
	Candidates []policy.Candidate // as the scheduler sees them
	Scheduler  string
	Stickiness policy.Stickiness // that counts for the session
	// OnUplinkDown is what becomes of the session when that uplink is down, "" for one that is not of TCP or not translated.
	OnUplinkDown policy.OnUplinkDown
}

// Explain says what would become of the first packet of a session, by what decides about packets. Nothing is opened, and no
// scheduler's turn is used up. An inside port of 0 stands for one that is not in use.
func (g *Gateway) Explain(key nat.Key, dscp uint8, now nat.Tick) (e Explanation) {
	s := g.sessionOfKey(key)
	s.DSCP = dscp
	r := g.judge(s)
	e = Explanation{Plan: r.Plan, Rule: r.rule, Action: r.action, Group: r.action.Group}
	for i := range r.Rules {
		if i == r.rule {
			break
		}
		e.Fails = append(e.Fails, r.Rules[i].Fails(&s, &g.cfg.Facts))
	}
	v := g.view.Load()
	if u := v.Owner(s.Inside); u != nil {
		e.Outcome, e.Uplink = Own, u
		return e
	}
	if ref := g.table.FindOut(key); ref != 0 && g.works(ref) {
		tr := g.table.Translation(ref)
		e.Outcome, e.Uplink, e.Reason = Known, v.ByID(tr.Uplink), policy.Reason(tr.Reason)
		e.falls(&r, key, g.table.Rule(ref))
		return e
	}
	if !isHost(key.Inside) || !isHost(key.Remote) || v.leads(key.Remote) {
		e.Outcome, e.Refused = Refused, BadAddress
		return e
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	o := opening{ruled: &r, v: v, key: key, now: now, explain: true}
	e.weigh(g, &o)
	return e
}

// weigh is place without opening anything. g.mu is held.
func (e *Explanation) weigh(g *Gateway, o *opening) {
	direct := o.action.Direct && !o.session.Own
	asked, refused, resolves := g.byResolver(o)
	id, mapped := g.mapped(o)
	u := g.announced(o)
	e.Refused = g.consider(o)
	e.Group, e.Candidates = o.group, append(e.Candidates, g.candidates...)
	e.Scheduler, e.Stickiness = o.scheduler(o.group).Name(), o.stickiness()
	switch {
	case resolves && refused != NoReason:
		e.Outcome, e.Refused = Refused, refused
	case resolves:
		e.Outcome, e.Uplink, e.Reason, e.Refused = Placed, o.v.ByID(asked), policy.ReasonResolver, NoReason
	case direct && e.Refused == NoReason:
		e.Outcome, e.Uplink = Direct, g.first(o.v)
	case mapped && !direct:
		e.Outcome, e.Uplink, e.Refused = Mapped, o.v.ByID(id), NoReason
	case u != nil && !direct:
		e.Outcome, e.Uplink, e.Refused = Announced, u, NoReason
	case e.Refused != NoReason:
		e.Outcome = Refused
	default:
		id, e.Reason = g.choose(o)
		e.Outcome, e.Uplink = Placed, o.v.ByID(id)
	}
	switch e.Outcome {
	case Mapped, Announced: // no rule placed it
		e.falls(o.ruled, o.key, 0)
	case Placed:
		e.falls(o.ruled, o.key, o.number())
	}
}

// falls notes what becomes of a session that a rule places when its uplink is down.
func (e *Explanation) falls(r *ruled, key nat.Key, rule uint32) {
	if key.Proto == packet.ProtoTCP {
		e.OnUplinkDown = r.onUplinkDown(rule)
	}
}
