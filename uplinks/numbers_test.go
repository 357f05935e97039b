package uplinks

import "testing"

// span is of numbers in a row, none of them when it is zero.
type span struct{ first, last int }

func (s span) meets(o span) bool { return s.last > 0 && s.first <= o.last && o.first <= s.last }

// TestNumbersAreNobodyElses: no priority of ours, table or protocol is one that a program beside us has chosen for its own, by its sources.
func TestNumbersAreNobodyElses(t *testing.T) {
	var (
		priorities = span{ResolverRule, RuleLast}
		tables     = span{TableBase, PauseTable}
		protocols  = span{Protocol, Protocol}
	)
	for _, n := range []struct {
		name                        string
		priorities, table, protocol span
	}{
		{"kernel", span{32766, 32767}, span{253, 255}, span{1, 4}},
		{"VRF", span{1000, 1000}, span{}, span{}},
		{"rules without a priority", span{32700, 32765}, span{}, span{}},
		{"Tailscale", span{5200, 5299}, span{52, 52}, span{}},
		{"Tailscale beside mwan3", span{1310, 1370}, span{52, 52}, span{}},
		{"wg-quick", span{}, span{51820, 52819}, span{}},
		{"NetworkManager", span{30768, 31767}, span{51820, 52319}, span{16, 16}},
		{"systemd-networkd", span{}, span{}, span{16, 16}},
		{"mwan3", span{1001, 3254}, span{1, 252}, span{}},
		{"UniFi", span{32000, 32765}, span{201, 251}, span{}},
		{"Mullvad", span{}, span{0x6d6f6c65, 0x6d6f6c65}, span{}},
		{"telepresence", span{5209, 5209}, span{775, 775}, span{}},
		{"Cilium", span{9, 111}, span{2004, 2005}, span{}},
		{"Calico", span{}, span{}, span{80, 80}},
		{"routing daemons", span{}, span{}, span{8, 18}},
		{"Babel", span{}, span{}, span{42, 42}},
		{"FRR", span{}, span{}, span{186, 196}},
	} {
		if n.priorities.meets(priorities) || n.table.meets(tables) || n.protocol.meets(protocols) {
			t.Errorf("%s has numbers of ours: %+v", n.name, n)
		}
	}
	if PauseRule < RuleBase+MaxUplinks || ResolverTable < TableBase+MaxUplinks {
		t.Error("uplinks have numbers that we need for something else")
	}
}
