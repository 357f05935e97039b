package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func set(prefixes ...string) *Set {
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	return NewSet(list)
}

var (
	laptop = MAC{2, 0, 0, 0, 0, 7}
	known  = Facts{
		Interface: func(Session) string { return "lan0" },
		MAC:       func(Session) (MAC, bool) { return laptop, true },
		Domains:   func(Session) []string { return []string{"edge.cdn.example", "www.example.org"} },
		Owner: func(Session) (Owner, bool) {
			return Owner{UID: 1000, User: "alice", Cgroup: "/user.slice/user-1000.slice/app.slice/firefox.service", Executable: "/usr/lib/firefox/firefox"}, true
		},
	}
)

func session() Session {
	return Session{
		Inside: netip.MustParseAddr("192.168.1.20"), Remote: netip.MustParseAddr("203.0.113.9"), InsidePort: 40000, RemotePort: 443,
		Proto: 6, DSCP: 46, Minute: MinuteOf(time.Date(2026, 11, 22, 14, 30, 0, 0, time.UTC)), Own: true, // a Sunday
	}
}

// TestFields: each matcher by itself, and what fails first.
func TestFields(t *testing.T) {
	const sunday, saturday = 1 << 0, 1 << 6
	for _, c := range []struct {
		name string
		rule Rule
		want Field
	}{
		{"empty", Rule{}, Matched},
		{"from", Rule{From: []*Set{set("10.0.0.0/8"), set("192.168.1.0/24")}}, Matched},
		{"not from", Rule{From: []*Set{set("192.168.2.0/24")}}, ByFrom},
		{"to", Rule{To: []*Set{set("203.0.113.9/32")}}, Matched},
		{"not to", Rule{To: []*Set{set("203.0.113.8/32", "2001:db8::/32")}}, ByTo},
		{"to nowhere", Rule{To: []*Set{set()}}, ByTo},
		{"port", Rule{Ports: []PortRange{{80, 80}, {443, 443}}}, Matched},
		{"range", Rule{Ports: []PortRange{{1, 65535}}}, Matched},
		{"not port", Rule{Ports: []PortRange{{444, 65535}, {1, 442}}}, ByPort},
		{"protocol", Rule{Protocols: []uint8{17, 6}}, Matched},
		{"not protocol", Rule{Protocols: []uint8{17}, Ports: []PortRange{{1, 1}}}, ByProtocol},
		{"DSCP", Rule{DSCP: []uint8{46}}, Matched},
		{"not DSCP", Rule{DSCP: []uint8{0}}, ByDSCP},
		{"direct", Rule{Action: Action{Direct: true}}, ByDirect},
		{"interface", Rule{Interfaces: []string{"lan0"}}, Matched},
		{"not interface", Rule{Interfaces: []string{"lan1"}}, ByInterface},
		{"MAC", Rule{MACs: []MAC{laptop}}, Matched},
		{"not MAC", Rule{MACs: []MAC{{2}}}, ByMAC},
		{"domain", Rule{Domains: []string{"www.example.org"}}, Matched},
		{"domain above", Rule{Domains: []string{"other.example", "example"}}, Matched},
		{"not domain", Rule{Domains: []string{"ample.org", "x.www.example.org"}}, ByDomain},
		{"user", Rule{Users: []string{"bob", "alice"}}, Matched},
		{"user number", Rule{Users: []string{"1000"}}, Matched},
		{"not user", Rule{Users: []string{"bob", "1001", "99999999999", ""}}, ByUser},
		{"unit", Rule{Units: []string{"firefox.service"}}, Matched},
		{"slice", Rule{Units: []string{"user-1000.slice"}}, Matched},
		{"cgroup", Rule{Units: []string{"/user.slice"}}, Matched},
		{"not unit", Rule{Units: []string{"firefox", "/user", ""}}, ByUnit},
		{"executable", Rule{Executables: []string{"/usr/lib/firefox/firefox"}}, Matched},
		{"name of executable", Rule{Executables: []string{"firefox"}}, Matched},
		{"not executable", Rule{Executables: []string{"fox", "/usr/bin/firefox", "/firefox"}}, ByExecutable},
		{"time", Rule{Times: []Span{{sunday, 14 * 60, 15 * 60}}}, Matched},
		{"its first minute", Rule{Times: []Span{{sunday, 14*60 + 30, 15 * 60}}}, Matched},
		{"its end", Rule{Times: []Span{{sunday, 0, 14*60 + 30}}}, ByTime},
		{"another day", Rule{Times: []Span{{saturday, 0, 1440}}}, ByTime},
		{"since yesterday", Rule{Times: []Span{{saturday, 1000, 14*60 + 31}}}, Matched},
		{"until tomorrow", Rule{Times: []Span{{sunday, 14 * 60, 60}}}, Matched},
		{"all", Rule{From: []*Set{set("0.0.0.0/0")}, Ports: []PortRange{{443, 443}}, Protocols: []uint8{6}, MACs: []MAC{laptop}, Users: []string{"alice"}}, Matched},
	} {
		s := session()
		if got := c.rule.Fails(&s, &known); got != c.want {
			t.Errorf("%s: fails at %q, want %q", c.name, got, c.want)
		}
	}
}

// TestUnknownFacts: what nobody knows matches no rule that asks for it; sockets of others than the host are not asked for.
func TestUnknownFacts(t *testing.T) {
	s := session()
	rules := []Rule{
		{Interfaces: []string{"lan0"}}, {MACs: []MAC{laptop}}, {Domains: []string{"example"}}, {Users: []string{"alice"}},
		{Units: []string{"firefox.service"}}, {Executables: []string{"firefox"}},
	}
	for i := range rules {
		if rules[i].Fails(&s, &Facts{}) == Matched {
			t.Errorf("rule %d matches without facts", i)
		}
	}
	s.Own = false
	if got := rules[3].Fails(&s, &known); got != ByUser {
		t.Errorf("a LAN host's session: %q", got)
	}
}

// TestCostlyFactsAreAskedLast, and only by rules that need them.
func TestCostlyFactsAreAskedLast(t *testing.T) {
	asked := 0
	f := known
	f.MAC = func(Session) (MAC, bool) { asked++; return laptop, true }
	p := Plan{Rules: []Rule{
		{Protocols: []uint8{17}, MACs: []MAC{laptop}}, {MACs: []MAC{laptop}, To: []*Set{set("10.0.0.0/8")}}, {Ports: []PortRange{{443, 443}}},
	}}
	s := session()
	if got := p.Find(&s, &f); got != 2 || asked != 0 {
		t.Errorf("rule %d, asked %d times", got, asked)
	}
}

// TestFindAllocatesNothing.
func TestFindAllocatesNothing(t *testing.T) {
	p := Plan{Rules: []Rule{
		{From: []*Set{set("10.0.0.0/8")}}, {Ports: []PortRange{{1, 1}}}, {MACs: []MAC{{1}}}, {Domains: []string{"example.net"}, Users: []string{"bob"}},
		{Users: []string{"bob", "7"}}, {Units: []string{"/x", "y.service"}}, {Times: []Span{{0, 1, 2}}}, {Interfaces: []string{"lan0"}},
	}}
	s, names := session(), []string{"www.example.org"}
	f := known
	f.Domains = func(Session) []string { return names }
	if n := testing.AllocsPerRun(100, func() {
		if p.Find(&s, &f) != 7 {
			t.Fatal("the last rule matches")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestFirstMatchWins: the rule that is found matches, and none before it.
func TestFirstMatchWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := session()
		s.RemotePort, s.Proto = rapid.Uint16Range(1, 6).Draw(t, "port"), rapid.SampledFrom([]uint8{6, 17}).Draw(t, "proto")
		s.Minute = Minute(rapid.Uint16Range(0, 7*1440-1).Draw(t, "minute"))
		var p Plan
		for range rapid.IntRange(0, 8).Draw(t, "rules") {
			p.Rules = append(p.Rules, Rule{
				Ports:     rapid.SliceOfN(rapid.Map(rapid.Uint16Range(1, 6), func(n uint16) PortRange { return PortRange{n, n + 1} }), 0, 2).Draw(t, "ports"),
				Protocols: rapid.SliceOfN(rapid.SampledFrom([]uint8{6, 17}), 0, 1).Draw(t, "protocols"),
				Times: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Span {
					return Span{Days(rapid.Uint8Range(1, 127).Draw(t, "days")), rapid.Uint16Range(0, 1439).Draw(t, "from"), rapid.Uint16Range(0, 1440).Draw(t, "to")}
				}), 0, 1).Draw(t, "times"),
			})
		}
		want := slices.IndexFunc(p.Rules, func(r Rule) bool { return matchesSlowly(&r, &s) })
		if got := p.Find(&s, &Facts{}); got != want {
			t.Fatalf("rule %d, want %d", got, want)
		}
	})
}

// matchesSlowly says in other words what a rule means, minute by minute.
func matchesSlowly(r *Rule, s *Session) bool {
	if len(r.Protocols) > 0 && !slices.Contains(r.Protocols, s.Proto) {
		return false
	}
	if len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(p PortRange) bool { return p.First <= s.RemotePort && s.RemotePort <= p.Last }) {
		return false
	}
	if len(r.Times) == 0 {
		return true
	}
	for _, span := range r.Times {
		length := int(span.Last) - int(span.First)
		if length <= 0 {
			length += 1440
		}
		for day := range 7 {
			since := (int(s.Minute) - day*1440 - int(span.First) + 2*7*1440) % (7 * 1440)
			if span.Days&(1<<day) != 0 && since < length {
				return true
			}
		}
	}
	return false
}

// TestTiersOfGroups: members by any name, with the tier of the group or their own.
func TestTiersOfGroups(t *testing.T) {
	g := Group{Members: []Member{{Name: "fiber", OwnTier: true}, {Name: "wwan0", Tier: 1}}}
	for _, c := range []struct {
		names []string
		tier  int
		ok    bool
	}{{[]string{"fiber", "eth0"}, 5, true}, {[]string{"lte", "wwan0"}, 1, true}, {[]string{"dsl", "eth1"}, 0, false}} {
		if tier, ok := g.Tier(5, c.names...); tier != c.tier || ok != c.ok {
			t.Errorf("%v: %d, %v", c.names, tier, ok)
		}
	}
	if tier, ok := new(Group).Tier(5, "any"); tier != 5 || !ok {
		t.Error("a group without members has all")
	}
}

// TestChain: the groups that are asked, each once, whatever points where.
func TestChain(t *testing.T) {
	p := Plan{Groups: []Group{{WhenDown: Refuse}, {WhenDown: 2}, {WhenDown: 1}, {WhenDown: Everything}, {WhenDown: Refuse}}}
	for _, c := range []struct {
		action Action
		want   []int
	}{
		{Action{Group: 0, WhenDown: Refuse}, []int{0}}, {Action{Group: 1, WhenDown: 2}, []int{1, 2}}, {Action{Group: 3, WhenDown: Everything}, []int{3, 0}},
		{Action{Group: 4, WhenDown: Refuse}, []int{4}}, {Action{Group: 4, WhenDown: 3}, []int{4, 3, 0}}, {Action{Group: 3, WhenDown: 1}, []int{3, 1, 2}},
	} {
		var got []int
		p.Chain(&c.action, func(group int) bool { got = append(got, group); return false })
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v asks %v, want %v", c.action, got, c.want)
		}
	}
}

// TestCloneDecidesTheSame as its original would, and leaves that as it is.
func TestCloneDecidesTheSame(t *testing.T) {
	for _, name := range Names() {
		s, c := mustNew(t, name), candidates(100, 20, 50)
		for i := range 50 {
			want := Clone(s).Pick(Request{Source: 1}, c)
			Clone(s).Pick(Request{Source: 1}, c)
			if got := s.Pick(Request{Source: 1}, c); got != want {
				t.Fatalf("%s: pick %d is %d, its clone's was %d", name, i, got, want)
			}
		}
	}
}
