package daemon

import (
	"tapgw/configs"
	"tapgw/policy"
)

// plan is what the configuration says about where sessions go, in the words of package policy.
func plan(c *configs.Config) *policy.Plan {
	p := policy.NewPlan(c.Policy.Scheduler)
	if len(c.NAT.Exempt) > 0 {
		direct := p.ActionOf(policy.NoRule)
		direct.Direct = true
		p.Rules = append(p.Rules, policy.Rule{Name: "nat.exempt", Action: direct, To: []*policy.Set{policy.NewSet(c.NAT.Exempt)}})
	}
	return p
}
