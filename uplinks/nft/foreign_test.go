package nft

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// foreignHost is a host with a LAN, an uplink and a TAP.
type foreignHost struct {
	t        *testing.T
	ns       *lab.Namespace
	foreign  *Foreign
	tap, lan int
}

func newForeignHost(t *testing.T) *foreignHost {
	h := &foreignHost{t: t, ns: labtest.Namespace(t, "host"), foreign: NewForeign()}
	t.Cleanup(func() { labtest.Must(t, h.foreign.Close()) })
	for _, pair := range [][2]string{{"tapgw0", "sink"}, {"lan0", "far"}, {"wan0", "isp"}} {
		veth := netlink.NewLinkAttrs()
		veth.Name = pair[0]
		labtest.Must(t, h.ns.Handle().LinkAdd(&netlink.Veth{LinkAttrs: veth, PeerName: pair[1]}))
	}
	h.tap, h.lan = h.index("tapgw0"), h.index("lan0")
	return h
}

func (h *foreignHost) index(device string) int {
	h.t.Helper()
	index, err := h.ns.Index(device)
	labtest.Must(h.t, err)
	return index
}

// expect compares what is bypassed. Lines of people are given without "nftables: chain ".
func (h *foreignHost) expect(want ...string) {
	h.t.Helper()
	h.expectNotOurs(nil, want...)
}

// testChain is a chain to be made; it is a base chain when it has a hook.
type testChain struct {
	id     string // "FAMILY TABLE NAME"
	hook   *nftables.ChainHook
	kind   nftables.ChainType // filter when empty
	drops  bool
	device string
	rules  [][]expr.Any
}

var testFamilies = map[string]nftables.TableFamily{
	"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet,
	"bridge": nftables.TableFamilyBridge, "netdev": nftables.TableFamilyNetdev, "arp": nftables.TableFamilyARP,
}

// add makes chains in one transaction. Jumps must go to earlier ones.
func (h *foreignHost) add(chains ...testChain) {
	h.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(h.ns.FD()))
	labtest.Must(h.t, err)
	for _, tc := range chains {
		id := strings.Fields(tc.id)
		table := c.AddTable(&nftables.Table{Name: id[1], Family: testFamilies[id[0]]})
		chain := &nftables.Chain{Name: id[2], Table: table}
		if tc.hook != nil {
			policy := nftables.ChainPolicyAccept
			if tc.drops {
				policy = nftables.ChainPolicyDrop
			}
			chain.Hooknum, chain.Priority, chain.Policy, chain.Device = tc.hook, nftables.ChainPriorityRef(10), &policy, tc.device
			if chain.Type = tc.kind; tc.kind == "" {
				chain.Type = nftables.ChainTypeFilter
			}
		}
		c.AddChain(chain)
		for _, r := range tc.rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
		}
	}
	labtest.Must(h.t, c.Flush())
}

func from(device string) []expr.Any { return join(meta(expr.MetaKeyIIFNAME), equal(ifname(device))) }

func to(device string) []expr.Any { return join(meta(expr.MetaKeyOIFNAME), equal(ifname(device))) }

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func count() []expr.Any { return []expr.Any{&expr.Counter{}} }

func established() []expr.Any { return conntrack(expr.CtKeySTATE, ctEstablishedOrRelated) }

func setMark() []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: native(1)}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1}}
}

func natTo(address ...byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: address},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}

func rules(list ...[]expr.Any) [][]expr.Any { return list }

// bypassCase is a ruleset, and the chains of it that are bypassed.
type bypassCase struct {
	name   string
	chains []testChain
	want   []string // without "nftables: chain "
}

// has follows the name of a chain that is bypassed because of its rules.
const has = " has rules for such packets"

func expectBypassed(t *testing.T, cases []bypassCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newForeignHost(t)
			h.add(c.chains...)
			want := slices.Clone(c.want)
			for i := range want {
				want[i] = "nftables: chain " + want[i]
			}
			h.expect(want...)
		})
	}
}

// TestBypassedRules: each kind of rule, of policy and of family.
func TestBypassedRules(t *testing.T) {
	pre, forward, post := nftables.ChainHookPrerouting, nftables.ChainHookForward, nftables.ChainHookPostrouting
	letThrough := rules(join(from("lan0"), to("tapgw0"), accept()), join(from("tapgw0"), to("lan0"), accept()))
	expectBypassed(t, []bypassCase{
		{"nothing", nil, nil},
		{"forward rule", []testChain{{id: "inet filter forward", hook: forward, rules: rules(drop())}}, []string{"inet filter forward" + has}},
		{"forward policy", []testChain{{id: "ip f forward", hook: forward, drops: true}}, []string{"ip f forward drops by default"}},
		{"mark", []testChain{{id: "ip mangle pre", hook: pre, rules: rules(setMark())}}, []string{"ip mangle pre" + has}},
		{"counter", []testChain{{id: "ip acct forward", hook: forward, rules: rules(count())}}, []string{"ip acct forward" + has}},
		{"dnat", []testChain{{id: "ip nat pre", hook: pre, kind: "nat", rules: rules(natTo(10, 0, 0, 1))}}, []string{"ip nat pre" + has}},
		{"masquerade all", []testChain{{id: "ip nat post", hook: post, kind: "nat", rules: rules(masquerade())}}, []string{"ip nat post" + has}},
		{"IPv6 only", []testChain{{id: "inet f forward", hook: forward, rules: rules(join(meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6}), drop()))}}, nil},
		{"other families", []testChain{
			{id: "ip6 f forward", hook: forward, drops: true, rules: rules(drop())},
			{id: "arp f input", hook: nftables.ChainHookRef(0), drops: true},
			{id: "bridge f forward", hook: forward, drops: true, rules: rules(drop())},
		}, nil},
		{"the host's own traffic", []testChain{
			{id: "inet f input", hook: nftables.ChainHookInput, drops: true, rules: rules(join(established(), accept()), count())},
			{id: "inet f output", hook: nftables.ChainHookOutput, drops: true, rules: rules(setMark())},
			{id: "ip r output", hook: nftables.ChainHookOutput, kind: "route", rules: rules(setMark())},
		}, nil},
		{"only accepted", []testChain{{id: "inet f forward", hook: forward, rules: rules(join(established(), accept()), accept(), drop())}}, nil},
		{"accepted when established", []testChain{{id: "inet f forward", hook: forward, drops: true, rules: rules(join(established(), accept()))}}, []string{"inet f forward drops by default"}},
		{"accepted for certain", []testChain{{id: "inet f forward", hook: forward, drops: true, rules: append(letThrough, count(), drop())}}, nil},
		{"accepted one way", []testChain{{id: "inet f forward", hook: forward, drops: true, rules: letThrough[:1]}}, []string{"inet f forward drops by default"}},
		{"accepted elsewhere only", []testChain{
			{id: "inet f forward", hook: forward, rules: letThrough},
			{id: "inet g forward", hook: forward, rules: rules(drop())},
		}, []string{"inet g forward" + has}},
	})
}

// TestBypassedDevices: rules that name a device, and chains at one.
func TestBypassedDevices(t *testing.T) {
	pre, forward, post := nftables.ChainHookPrerouting, nftables.ChainHookForward, nftables.ChainHookPostrouting
	expectBypassed(t, []bypassCase{
		{"port forward", []testChain{{id: "ip nat pre", hook: pre, kind: "nat", rules: rules(join(from("wan0"), natTo(10, 0, 0, 1)))}}, []string{"ip nat pre" + has}},
		{"masquerade uplink", []testChain{{id: "ip nat post", hook: post, kind: "nat", rules: rules(join(to("wan0"), masquerade()))}}, nil},
		{"masquerade TAP", []testChain{{id: "ip nat post", hook: post, kind: "nat", rules: rules(join(to("tapgw0"), masquerade()))}}, []string{"ip nat post" + has}},
		{"device by prefix", []testChain{{id: "ip f forward", hook: forward, rules: rules(
			join(meta(expr.MetaKeyOIFNAME), equal([]byte("wan")), drop()), join(meta(expr.MetaKeyIIFNAME), equal([]byte("la")), drop()))}}, []string{"ip f forward" + has}},
		{"other device by prefix", []testChain{{id: "ip f forward", hook: forward, rules: rules(join(meta(expr.MetaKeyOIFNAME), equal([]byte("wan")), drop()))}}, nil},
		{"device by index", []testChain{{id: "ip f forward", hook: forward, rules: rules(join(meta(expr.MetaKeyIIF), equal(native(math.MaxUint32)), drop()))}}, nil},
		{"not that device", []testChain{{id: "ip f forward", hook: forward, rules: rules(
			join(meta(expr.MetaKeyIIFNAME), compare(expr.CmpOpNeq, ifname("lan0")), meta(expr.MetaKeyIIFNAME), compare(expr.CmpOpNeq, ifname("tapgw0")), drop()))}}, nil},
		{"counter before the device", []testChain{{id: "ip f forward", hook: forward, rules: rules(join(count(), from("wan0"), drop()))}}, []string{"ip f forward" + has}},
		{"no output device yet", []testChain{{id: "ip f pre", hook: pre, rules: rules(join(to("tapgw0"), accept()), drop())}}, []string{"ip f pre" + has}},
		{"at devices", []testChain{
			{id: "netdev n lan", hook: nftables.ChainHookIngress, device: "lan0", rules: rules(setMark())},
			{id: "netdev n tap", hook: nftables.ChainHookIngress, device: "tapgw0", drops: true},
			{id: "netdev n wan", hook: nftables.ChainHookIngress, device: "wan0", rules: rules(drop())},
			{id: "netdev n harmless", hook: nftables.ChainHookIngress, device: "lan0", rules: rules(join(from("wan0"), drop()), join(
				meta(expr.MetaKeyPROTOCOL), equal([]byte{0x86, 0xdd}), drop()))},
			{id: "netdev n out", hook: nftables.ChainHookEgress, device: "lan0", rules: rules(join(to("lan0"), count()))},
			{id: "netdev n in", hook: nftables.ChainHookEgress, device: "lan0", rules: rules(join(to("wan0"), count()))},
		}, []string{"netdev n lan" + has, "netdev n tap drops by default", "netdev n out" + has}},
	})
}

// TestBypassedChains: what jumps reach.
func TestBypassedChains(t *testing.T) {
	pre, forward, post := nftables.ChainHookPrerouting, nftables.ChainHookForward, nftables.ChainHookPostrouting
	jumpOut, jumpEmpty := verdict(expr.VerdictJump, "out"), verdict(expr.VerdictJump, "empty")
	expectBypassed(t, []bypassCase{
		{"empty chains", []testChain{
			{id: "inet firewalld empty"},
			{id: "inet firewalld out", rules: rules(jumpEmpty, join(from("lan0"), verdict(expr.VerdictGoto, "empty")), jumpEmpty)},
			{id: "inet firewalld pre", hook: pre, rules: rules(jumpOut, jumpEmpty)},
			{id: "inet firewalld forward", hook: forward, rules: rules(jumpOut, jumpEmpty)},
			{id: "inet firewalld post", hook: post, kind: "nat", rules: rules(jumpOut)},
		}, nil},
		{"chain that acts", []testChain{
			{id: "inet f deep", rules: rules(count())},
			{id: "inet f out", rules: rules(join(from("lan0"), verdict(expr.VerdictGoto, "deep")))},
			{id: "inet f forward", hook: forward, rules: rules(jumpOut)},
		}, []string{"inet f forward" + has}},
		{"chain for another device", []testChain{
			{id: "inet f out", rules: rules(drop())},
			{id: "inet f forward", hook: forward, rules: rules(join(from("wan0"), jumpOut), join(to("wan0"), verdict(expr.VerdictGoto, "out")))},
		}, nil},
		{"returned before", []testChain{
			{id: "inet f out", rules: rules(verdict(expr.VerdictReturn, ""), drop())},
			{id: "inet f forward", hook: forward, rules: rules(jumpOut)},
		}, nil},
		{"goto misses what follows", []testChain{
			{id: "inet f empty"},
			{id: "inet f out", rules: rules(verdict(expr.VerdictGoto, "empty"), drop())},
			{id: "inet f forward", hook: forward, rules: rules(jumpOut)},
			{id: "inet f post", hook: post, rules: rules(jumpOut, drop())},
		}, []string{"inet f post" + has}},
		{"Docker", []testChain{
			{id: "ip filter DOCKER-USER"},
			{id: "ip filter FORWARD", hook: forward, drops: true, rules: rules(join(count(), verdict(expr.VerdictJump, "DOCKER-USER")), join(to("docker0"), established(), count(), accept()))},
			{id: "ip nat DOCKER", rules: rules(join(from("docker0"), count(), verdict(expr.VerdictReturn, "")))},
			{id: "ip nat PREROUTING", hook: pre, kind: "nat", rules: rules(join(
				[]expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}}, equal(native(unix.RTN_LOCAL)), count(), verdict(expr.VerdictJump, "DOCKER")))},
			{id: "ip nat POSTROUTING", hook: post, kind: "nat", rules: rules(join(
				network(12, 4), mask([]byte{255, 255, 0, 0}), equal([]byte{172, 17, 0, 0}),
				meta(expr.MetaKeyOIFNAME), compare(expr.CmpOpNeq, ifname("docker0")), count(), masquerade()))},
		}, []string{"ip filter FORWARD" + has, "ip nat PREROUTING" + has, "ip nat POSTROUTING" + has}},
	})
}

// TestBypassedSets matches the output device against sets, before a drop.
func TestBypassedSets(t *testing.T) {
	anonymous := nftables.Set{Anonymous: true, Constant: true, KeyType: nftables.TypeIFName}
	named := nftables.Set{Name: "devices", KeyType: nftables.TypeIFName}
	constant := nftables.Set{Name: "devices", Constant: true, KeyType: nftables.TypeIFName}
	for name, c := range map[string]struct {
		set      nftables.Set
		elements []string
		inverted bool
		acts     bool
	}{
		"others":                    {anonymous, []string{"wan0", "docker0"}, false, false},
		"one of ours":               {anonymous, []string{"wan0", "tapgw0"}, false, true},
		"none of ours":              {anonymous, []string{"wan0", "tapgw0", "lan0"}, true, false},
		"one way":                   {anonymous, []string{"wan0", "tapgw0"}, true, true},
		"named":                     {constant, []string{"wan0"}, false, false},
		"empty":                     {constant, nil, false, false},
		"may change while in force": {named, []string{"wan0"}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newForeignHost(t)
			c.set.Table = &nftables.Table{Name: "f", Family: nftables.TableFamilyINet}
			conn, err := nftables.New(nftables.WithNetNSFd(h.ns.FD()))
			labtest.Must(t, err)
			conn.AddTable(c.set.Table)
			var elements []nftables.SetElement
			for _, e := range c.elements {
				elements = append(elements, nftables.SetElement{Key: ifname(e)})
			}
			labtest.Must(t, conn.AddSet(&c.set, elements))
			chain := conn.AddChain(&nftables.Chain{Name: "forward", Table: c.set.Table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
			lookup := &expr.Lookup{SourceRegister: 1, SetName: c.set.Name, SetID: c.set.ID, Invert: c.inverted}
			conn.AddRule(&nftables.Rule{Table: c.set.Table, Chain: chain, Exprs: join(meta(expr.MetaKeyOIFNAME), []expr.Any{lookup}, drop())})
			labtest.Must(t, conn.Flush())
			var want []string
			if c.acts {
				want = []string{"nftables: chain inet f forward has rules for such packets"}
			}
			h.expect(want...)
		})
	}
}

// TestMetByHost: the chains that the host's own packets meet at the TAP, and no others.
func TestMetByHost(t *testing.T) {
	h := newForeignHost(t)
	drop := rules(drop())
	h.add(
		testChain{id: "inet f forward", hook: nftables.ChainHookForward, rules: drop},
		testChain{id: "inet f lo", hook: nftables.ChainHookInput, rules: rules(join(from("lo"), count()))},
		testChain{id: "inet f lan", hook: nftables.ChainHookOutput, rules: rules(join(to("lan0"), count()))},
		testChain{id: "inet f open", hook: nftables.ChainHookInput, rules: rules(accept())},
		testChain{id: "ip6 f in", hook: nftables.ChainHookInput, rules: drop},
	)
	h.expectMet(ofIPv4)
	h.expectMet(ofIPv6, "ip6 f in"+has)
	h.expectMissed("inet f lo", "inet f lan") // forwarded packets do not meet them
	h.add(
		testChain{id: "inet g in", hook: nftables.ChainHookInput, drops: true, rules: rules(join(established(), accept()))},
		testChain{id: "inet g out", hook: nftables.ChainHookOutput, rules: rules(join(to("tapgw0"), count()))},
		testChain{id: "ip g post", hook: nftables.ChainHookPostrouting, kind: "nat", rules: rules(masquerade())},
		testChain{id: "ip g pre", hook: nftables.ChainHookPrerouting, kind: "nat", rules: rules(join(from("wan0"), count()))},
	)
	h.expectMet(ofIPv4, "inet g in drops by default", "inet g out"+has, "ip g post"+has, "ip g pre"+has)
}

// TestMetAtUplinks: the chains that packets of connections meet that come in by an uplink, and no others.
func TestMetAtUplinks(t *testing.T) {
	h := newForeignHost(t)
	drop := rules(drop())
	atUplink := rules(join(from("wan0"), count()))
	h.add(
		testChain{id: "inet f forward", hook: nftables.ChainHookForward, rules: drop},
		testChain{id: "inet f out", hook: nftables.ChainHookOutput, rules: drop},
		testChain{id: "inet f tap", hook: nftables.ChainHookInput, rules: rules(join(from("tapgw0"), count()))},
		testChain{id: "ip f pre", hook: nftables.ChainHookPrerouting, kind: "nat", rules: atUplink},
		testChain{id: "netdev f lan", hook: nftables.ChainHookIngress, device: "lan0", rules: drop},
		testChain{id: "ip6 f in", hook: nftables.ChainHookInput, rules: drop},
	)
	h.expectAtUplinks(ofIPv4)
	h.expectAtUplinks(ofIPv6, "ip6 f in"+has)
	h.add(
		testChain{id: "inet g in", hook: nftables.ChainHookInput, rules: atUplink},
		testChain{id: "ip g raw", hook: nftables.ChainHookPrerouting, drops: true},
		testChain{id: "netdev g wan", hook: nftables.ChainHookIngress, device: "wan0", rules: drop},
	)
	h.expectAtUplinks(ofIPv4, "inet g in"+has, "ip g raw drops by default", "netdev g wan"+has)
}

func (h *foreignHost) expectAtUplinks(of family, want ...string) {
	h.t.Helper()
	h.expectChains(want, func() (chains []string, err error) {
		const gone = 1 << 20
		_, chains, err = h.foreign.metByHost(of, h.tap, []int{gone, h.index("wan0")})
		return chains, err
	})
}

// expectMet compares what the host's own packets of a family meet, and expectMissed tells what no forwarded packet does.
func (h *foreignHost) expectMet(of family, want ...string) {
	h.t.Helper()
	h.expectChains(want, func() (chains []string, err error) {
		chains, _, err = h.foreign.metByHost(of, h.tap, nil)
		return chains, err
	})
}

func (h *foreignHost) expectChains(want []string, find func() ([]string, error)) {
	h.t.Helper()
	var got []string
	h.do(func() (err error) { got, err = find(); return err })
	for i := range want {
		want[i] = "nftables: chain " + want[i]
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Errorf("the host's own packets meet %q, want %q", got, want)
	}
}

func (h *foreignHost) expectMissed(chains ...string) {
	h.t.Helper()
	var got []string
	h.do(func() (err error) { got, err = h.foreign.Bypassed(h.tap, []int{h.lan}); return err })
	for _, c := range chains {
		if slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, c) }) {
			h.t.Errorf("forwarded packets meet %q", got)
		}
	}
}
