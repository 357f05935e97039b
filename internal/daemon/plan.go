package daemon

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"sync"

	"tapgw/configs"
	"tapgw/internal/packet"
	"tapgw/policy"
)

// exemptRule is the name of the rule that nat.exempt makes.
const exemptRule = "nat.exempt"

// plan is what the configuration says about where sessions go, in the words of package policy. Rules keep the number that their name
// had before.
func (d *Daemon) plan(c *configs.Config) *policy.Plan {
	p := policy.NewPlan(c.Policy.Scheduler)
	p.Groups[policy.Everything].Stickiness = policy.Stickiness(c.Policy.Stickiness)
	p.OnUplinkDown = policy.OnUplinkDown(c.Policy.OnUplinkDown)
	for _, g := range c.Groups {
		p.Groups = append(p.Groups, groupOf(c, g))
	}
	if len(c.NAT.Exempt) > 0 {
		direct := p.ActionOf(policy.NoRule)
		direct.Direct = true
		p.Rules = append(p.Rules, policy.Rule{Name: exemptRule, Action: direct, To: []*policy.Set{policy.NewSet(c.NAT.Exempt)}})
	}
	sets := setsOf(c)
	for i := range c.Rules {
		r := ruleOf(&c.Rules[i], sets)
		r.Number, r.Action = d.numbers.of(r.Name), actionOf(c, p, &c.Rules[i])
		p.Rules = append(p.Rules, r)
	}
	d.addHostPins(p)
	d.addPins(p)
	return p
}

// groupOf is a group; the one of all uplinks comes before those of the configuration.
func groupOf(c *configs.Config, g configs.Group) policy.Group {
	out := policy.Group{
		Name: g.Name, Scheduler: cmp.Or(g.Scheduler, c.Policy.Scheduler),
		Stickiness: policy.Stickiness(cmp.Or(g.Stickiness, c.Policy.Stickiness)), WhenDown: whenDown(c, g.WhenDown),
	}
	for _, m := range g.Uplinks {
		out.Members = append(out.Members, policy.Member{Name: m.Uplink, Tier: m.Tier, OwnTier: m.Tier == configs.InheritTier})
	}
	return out
}

// whenDown is the index of the group to ask next.
func whenDown(c *configs.Config, word string) int {
	switch word {
	case configs.WhenDownRefuse:
		return policy.Refuse
	case configs.WhenDownAny:
		return policy.Everything
	}
	return indexOf(c, word)
}

// indexOf is that of a group by its name. The configuration has been checked: there is one.
func indexOf(c *configs.Config, group string) int {
	return 1 + slices.IndexFunc(c.Groups, func(g configs.Group) bool { return g.Name == group })
}

// actionOf is what a rule does, with what its group says where it says nothing.
func actionOf(c *configs.Config, p *policy.Plan, r *configs.Rule) policy.Action {
	a := policy.Action{Direct: r.Direct, Group: indexOf(c, cmp.Or(r.Use, configs.GroupAll))}
	g := &p.Groups[a.Group]
	a.Scheduler, a.Stickiness = cmp.Or(r.Scheduler, g.Scheduler), cmp.Or(policy.Stickiness(r.Stickiness), g.Stickiness)
	a.OnUplinkDown = policy.OnUplinkDown(r.OnUplinkDown)
	if a.WhenDown = g.WhenDown; r.WhenDown != "" {
		a.WhenDown = whenDown(c, r.WhenDown)
	}
	return a
}

// setsOf are the named sets.
func setsOf(c *configs.Config) map[string]*policy.Set {
	sets := make(map[string]*policy.Set)
	for _, s := range c.Sets {
		sets[s.Name] = policy.NewSet(slices.Concat(s.Prefixes, s.Read))
	}
	return sets
}

// ruleOf is what a rule matches.
func ruleOf(r *configs.Rule, sets map[string]*policy.Set) policy.Rule {
	out := policy.Rule{
		Name: r.Name, From: places(r.From, sets), To: places(r.To, sets), Interfaces: r.Interface, DSCP: r.DSCP, Domains: r.Domains,
		Users: r.Users, Units: r.Units, Executables: r.Executables, Protocols: r.Protocols,
	}
	if slices.Contains(r.Protocols, packet.ProtoICMP) {
		out.Protocols = append(slices.Clone(r.Protocols), packet.ProtoICMPv6)
	}
	for _, m := range r.MAC {
		out.MACs = append(out.MACs, policy.MAC(m))
	}
	for _, p := range r.Ports {
		out.Ports = append(out.Ports, policy.PortRange(p))
	}
	for _, t := range r.Times {
		out.Times = append(out.Times, policy.Span{Days: policy.Days(t.Days), First: t.First, Last: t.Last})
	}
	return out
}

// exemptions are the remotes that inside hosts speak to as they are, and the hosts that speak to everybody so.
func exemptions(c *configs.Config) (remotes, insides []netip.Prefix) {
	remotes = slices.Clone(c.NAT.Exempt)
	for i := range c.Rules {
		r := &c.Rules[i]
		switch {
		case !r.Direct:
		case len(r.To) > 0:
			remotes = append(remotes, prefixesOf(c, r.To)...)
		default:
			insides = append(insides, prefixesOf(c, r.From)...)
		}
	}
	return remotes, insides
}

// prefixesOf are those of a list of places, and of the sets that it names.
func prefixesOf(c *configs.Config, list []configs.Place) (prefixes []netip.Prefix) {
	for _, p := range list {
		if p.Set == "" {
			prefixes = append(prefixes, p.Prefix)
			continue
		}
		for _, s := range c.Sets {
			if s.Name == p.Set {
				prefixes = slices.Concat(prefixes, s.Prefixes, s.Read)
			}
		}
	}
	return prefixes
}

// places are the sets that a list of places names, and one of its prefixes.
func places(list []configs.Place, sets map[string]*policy.Set) (out []*policy.Set) {
	var prefixes []netip.Prefix
	for _, p := range list {
		if p.Set != "" {
			out = append(out, sets[p.Set])
		} else {
			prefixes = append(prefixes, p.Prefix)
		}
	}
	if len(prefixes) > 0 {
		out = append(out, policy.NewSet(prefixes))
	}
	return out
}

// ruleNumbers give each name of a rule a number for the life of the daemon, as sessions outlive the rules that placed them.
type ruleNumbers struct {
	mu     sync.Mutex
	names  []string // by number less one
	number map[string]uint32
}

// maxRuleNames bounds them; what comes later has no number.
const maxRuleNames = math.MaxUint16

func (n *ruleNumbers) of(name string) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number, known := n.number[name]; known || len(n.names) >= maxRuleNames {
		return number
	}
	if n.number == nil {
		n.number = make(map[string]uint32)
	}
	n.names = append(n.names, name)
	n.number[name] = uint32(len(n.names))
	return n.number[name]
}

// name is that of a number, "" for none.
func (n *ruleNumbers) name(number uint32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number == 0 || int(number) > len(n.names) {
		return ""
	}
	return n.names[number-1]
}
