package daemon

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tapgw/configs"
	"tapgw/policy"
)

const planned = `
policy: {scheduler: weighted, stickiness: session, on_uplink_down: move-if-unanswered}
nat: {exempt: [10.99.0.0/16]}
groups:
  work: {uplinks: [fiber, lte=1], stickiness: client, when_down: backup}
  backup: {uplinks: [lte], scheduler: failover, when_down: refuse}
sets: {office: [10.8.0.0/16]}
rules:
  - {name: a, to: [office, 10.9.0.1], protocols: [icmp, tcp], use: work}
  - {name: b, ports: [443], use: backup, scheduler: least-load, stickiness: site, when_down: any, on_uplink_down: keep}
  - {name: c, times: mon 08:00-09:00, from: [10.0.0.9], direct: true}
`

func planOf(t *testing.T, d *Daemon, text string) *policy.Plan {
	t.Helper()
	loaded, err := configs.Parse([]byte(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return d.plan(&loaded.Config)
}

// TestPlan: what rules and groups leave out is what those above them say; indexes name the right groups.
func TestPlan(t *testing.T) {
	p := planOf(t, new(Daemon), planned)
	groups := []policy.Group{
		{Name: "all", Scheduler: "weighted", Stickiness: policy.StickySession, WhenDown: policy.Refuse},
		{Name: "work", Scheduler: "weighted", Stickiness: policy.StickyClient, WhenDown: 2, Members: []policy.Member{
			{Name: "fiber", Tier: configs.InheritTier, OwnTier: true}, {Name: "lte", Tier: 1},
		}},
		{Name: "backup", Scheduler: "failover", Stickiness: policy.StickySession, WhenDown: policy.Refuse, Members: []policy.Member{
			{Name: "lte", Tier: configs.InheritTier, OwnTier: true},
		}},
	}
	if diff := cmp.Diff(groups, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	actions := []policy.Action{
		{Group: 0, Direct: true, Scheduler: "weighted", Stickiness: policy.StickySession, WhenDown: policy.Refuse},
		{Group: 1, Scheduler: "weighted", Stickiness: policy.StickyClient, WhenDown: 2},
		{Group: 2, Scheduler: "least-load", Stickiness: policy.StickySite, WhenDown: policy.Everything, OnUplinkDown: policy.KeepTCP},
		{Group: 0, Direct: true, Scheduler: "weighted", Stickiness: policy.StickySession, WhenDown: policy.Refuse},
	}
	if p.OnUplinkDown != policy.MoveUnanswered {
		t.Errorf("what no rule placed: %s", p.OnUplinkDown)
	}
	for i, want := range actions {
		if got := p.Rules[i].Action; got != want {
			t.Errorf("rule %s: %+v, want %+v", p.Rules[i].Name, got, want)
		}
	}
	to := p.Rules[1].To
	has := func(a string) bool { return to[0].Has(netip.MustParseAddr(a)) || to[1].Has(netip.MustParseAddr(a)) }
	if !has("10.8.1.1") || !has("10.9.0.1") || has("10.9.0.2") || len(p.Rules[1].Protocols) != 3 {
		t.Errorf("rule a: %+v", p.Rules[1])
	}
}

// TestRuleNumbers: a name keeps its number over reloads, as sessions do.
func TestRuleNumbers(t *testing.T) {
	d := new(Daemon)
	before := planOf(t, d, planned)
	after := planOf(t, d, "rules: [{name: x, use: all}, {name: b, ports: [1], use: all}]")
	if before.Rules[0].Number != 0 || before.Rules[2].Number != after.Rules[1].Number || d.numbers.name(before.Rules[1].Number) != "a" {
		t.Errorf("%v, then %v", before.Rules, after.Rules)
	}
	for number, want := range map[uint32]string{0: "", after.Rules[0].Number: "x", 99: ""} {
		if got := d.numbers.name(number); got != want {
			t.Errorf("%d: %q", number, got)
		}
	}
}

// TestPinsComeFirst: the rules of pins, the latest first, before those of the configuration, whose groups keep their numbers.
func TestPinsComeFirst(t *testing.T) {
	d := new(Daemon)
	plain := planOf(t, d, planned)
	d.pins = []pin{{"/a/tapgw-exec-1", "fiber"}, {"/a/tapgw-exec-1/tapgw-exec-2", "lte"}}
	p := planOf(t, d, planned)
	if diff := cmp.Diff(plain.Groups, p.Groups[:len(plain.Groups)]); diff != "" || len(p.Rules) != len(plain.Rules)+2 || p.Rules[2].Name != exemptRule {
		t.Fatalf("%s, rules %+v", diff, p.Rules)
	}
	outer := policy.Facts{Owner: func(policy.Session) (policy.Owner, bool) { return policy.Owner{Cgroup: "/a/tapgw-exec-1/x"}, true }}
	inner := policy.Facts{Owner: func(policy.Session) (policy.Owner, bool) {
		return policy.Owner{Cgroup: "/a/tapgw-exec-1/tapgw-exec-2"}, true
	}}
	for want, facts := range map[string]*policy.Facts{"fiber": &outer, "lte": &inner} {
		rule := p.Find(&policy.Session{Own: true}, facts)
		if rule < 0 || rule > 1 {
			t.Fatalf("%s: rule %d", want, rule)
		}
		group := p.Groups[p.Rules[rule].Action.Group]
		if group.Members[0].Name != want || p.Rules[rule].Action.WhenDown != policy.Refuse {
			t.Errorf("%s: %+v", want, group)
		}
	}
}
