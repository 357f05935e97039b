package policy

import "slices"

// Stickiness says which sessions stay together on one uplink.
type Stickiness string

// The values of Stickiness.
const (
	StickyAuto    Stickiness = "auto"    // TCP and UDP to port 443 by site, all else by session
	StickySession Stickiness = "session" // none: each session is placed anew
	StickySite    Stickiness = "site"    // those of one client to one site: what was registered of its name, else the network
	StickyClient  Stickiness = "client"  // those of one client
)

// OnUplinkDown says what becomes of TCP sessions whose uplink is down while another works. All other sessions are bound anew with the
// next packet from inside.
type OnUplinkDown string

// The values of OnUplinkDown.
const (
	// ResetTCP resets connections towards the inside, so that applications connect again at once. Unanswered ones move.
	ResetTCP OnUplinkDown = "reset"
	// MoveUnanswered lets connections wait for their uplink, but those that nobody has answered move.
	MoveUnanswered OnUplinkDown = "move-if-unanswered"
	// KeepTCP lets all wait.
	KeepTCP OnUplinkDown = "keep"
)

// Group is candidates, and how one is chosen among them.
type Group struct {
	Name       string
	Members    []Member // none for all there are
	Scheduler  string   // one of Names
	Stickiness Stickiness
	WhenDown   int // index of the group that is asked when none of the members can be used, or Refuse
}

// Member is a candidate of a group.
type Member struct {
	Name string
	Tier int // takes the place of the candidate's own, unless OwnTier
	// OwnTier leaves the candidate the tier that it has.
	OwnTier bool
}

// Everything is the index of the group of all candidates, which every Plan begins with.
const Everything = 0

// Refuse stands for a group: there is no other to ask.
const Refuse = -1

// Tier reports whether a candidate that goes by any of these names is a member, and of which tier; own is the candidate's.
func (g *Group) Tier(own int, names ...string) (tier int, ok bool) {
	if len(g.Members) == 0 {
		return own, true
	}
	for i := range g.Members {
		m := &g.Members[i]
		for _, name := range names {
			if m.Name != name {
				continue
			}
			if m.OwnTier {
				return own, true
			}
			return m.Tier, true
		}
	}
	return 0, false
}

// Action is what is done with the sessions that a rule matches.
type Action struct {
	Group      int    // index of Plan.Groups
	Direct     bool   // they leave with the address that they have
	Scheduler  string // the group's, or another
	Stickiness Stickiness
	WhenDown   int // as that of a Group

	OnUplinkDown OnUplinkDown // "" for the Plan's
}

// Plan is all that the user says about where sessions go. It does not change once it is in use.
type Plan struct {
	Groups []Group // the first is Everything
	Rules  []Rule  // the first that matches counts

	OnUplinkDown OnUplinkDown // of sessions that no rule placed
}

// NewPlan is one group of all candidates without rules.
func NewPlan(scheduler string) *Plan {
	all := Group{Name: "all", Scheduler: scheduler, Stickiness: StickyAuto, WhenDown: Refuse}
	return &Plan{Groups: []Group{all}, OnUplinkDown: ResetTCP}
}

// ActionOf is what a rule says, or the group of all candidates for a session that none matches.
func (p *Plan) ActionOf(rule int) Action {
	if rule >= 0 {
		return p.Rules[rule].Action
	}
	g := &p.Groups[Everything]
	return Action{Group: Everything, Scheduler: g.Scheduler, Stickiness: g.Stickiness, WhenDown: g.WhenDown}
}

// Chain calls yield with the groups that an action asks, one after the other, each once, until it returns true.
func (p *Plan) Chain(a *Action, yield func(group int) bool) {
	asked := uint64(0)
	for group, next := a.Group, a.WhenDown; asked&(1<<group) == 0; {
		if yield(group) || next == Refuse {
			return
		}
		asked |= 1 << group
		group, next = next, p.Groups[next].WhenDown
	}
}

// MaxGroups bounds the groups that others may lead to, as Chain remembers no more; those behind them come first or not at all.
const MaxGroups = 64

// NeedsNames reports whether it makes a difference by which name the remote of a session is known.
func (p *Plan) NeedsNames() bool {
	bySite := func(s Stickiness) bool { return s == StickyAuto || s == StickySite }
	return slices.ContainsFunc(p.Groups, func(g Group) bool { return bySite(g.Stickiness) }) ||
		slices.ContainsFunc(p.Rules, func(r Rule) bool { return len(r.Domains) > 0 || bySite(r.Action.Stickiness) })
}
