package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The tables. Their names are ours: whatever carries them is replaced. What is hidden has a table of its own, which the LAN's
// comings and goings do not touch.
var (
	ownedNetdev = table{name: "tapgw", family: unix.NFPROTO_NETDEV, flags: tableOwner}
	ownedTurn   = table{name: "tapgw_turn", family: unix.NFPROTO_NETDEV, flags: tableOwner}
	ownedInet   = table{name: "tapgw", family: unix.NFPROTO_INET, flags: tableOwner}
	fallback    = table{name: "tapgw_fallback", family: unix.NFPROTO_IPV4}
	fallbackV6  = table{name: "tapgw_fallback", family: unix.NFPROTO_IPV6}
)

// The places of our chains among those of others.
const (
	priorityIngress = -300 // as early as raw
	priorityRaw     = -300
	priorityForward = -10 // before the filters of users, who need not count what never passes
	priorityRefuse  = -9  // after our own drops, which spare connections while we live
	prioritySource  = 110 // after srcnat: who translates on purpose comes first
)

// Set names. Those of what each family has of its own get a suffix.
const (
	setUplinks    = "uplinks"
	setGuarded    = "guarded"
	setExempt     = "exempt"
	setExemptIn   = "exempt_insides"
	setCaptured   = "capture_devices"
	setPorts      = "ports"
	setTransport  = "transport"
	setFragments  = "fragments"
	setExtensions = "extensions"
	setDiscovery  = "discovery"
	setNotHidden  = "not_hidden"
	setOutside    = "outside"
	setWhole      = "whole"
	setInsides    = "insides"
	setErrors     = "errors"
	setOwn        = "own"
)

// Key types as nft numbers them, so that it prints the sets readably.
const (
	typeIPv4    = 7
	typeIPv6    = 8
	typeProto   = 12
	typeService = 13
	typeICMP    = 14
	typeICMPv6  = 29
	typeIfname  = 41
)

// firstPort is the lowest port the kernel may masquerade to: those below are for services.
const firstPort = 1024

// maxPortRules is how many ranges of ports have rules of their own.
const maxPortRules = 32

// plan is the content of our tables.
type plan struct {
	tables []table
	sets   []set
	chains []chain
}

// ours are all our tables.
var ours = []table{ownedNetdev, ownedTurn, ownedInet, fallback, fallbackV6}

func newPlan(w Wanted) plan {
	p := plan{}
	uplinks := slices.SortedFunc(slices.Values(w.Uplinks), func(a, b Uplink) int { return cmp.Compare(a.Name, b.Name) })
	ports := merge(w.Ports)
	if len(uplinks) > 0 {
		p.hide(uplinks, ports, w.Prefixes)
		p.turn(w, uplinks, ports)
		p.filter(w, uplinks)
		for _, f := range families {
			p.fallBack(f, w, uplinks, ports)
		}
	}
	return p
}

// part is what of p is in one table.
func (p plan) part(t table) (part plan) {
	for _, own := range p.tables {
		if own == t {
			part.tables = append(part.tables, t)
		}
	}
	for _, s := range p.sets {
		if s.table == t {
			part.sets = append(part.sets, s)
		}
	}
	for _, c := range p.chains {
		if c.table == t {
			part.chains = append(part.chains, c)
		}
	}
	return part
}

// fingerprint is the encoded messages: equal plans have equal ones.
func (p plan) fingerprint() (b []byte) {
	for _, m := range p.messages() {
		b, _ = m.append(b, 0) // a message that cannot be encoded fails the commit
	}
	return b
}

// messages create the tables of p, which must not exist.
func (p plan) messages() (messages []message) {
	for _, t := range p.tables {
		messages = append(messages, t.add())
	}
	for _, s := range p.sets {
		messages = append(messages, s.messages()...)
	}
	for _, c := range p.chains {
		messages = append(messages, c.add())
		for _, r := range c.rules {
			messages = append(messages, c.addRule(r))
		}
	}
	return messages
}

// hide drops what the userspace datapath received by AF_PACKET before this hook, so that the host's stack neither sees
// nor answers it: ports of the pool, fragments and what has extension headers, since their port may be elsewhere, and protocols
// without ports. What it gives back passes, as does everything else. The addresses are those of all uplinks, as it may be for a
// mapping of another one.
func (p *plan) hide(uplinks []Uplink, ports []PortRange, prefixes []netip.Prefix) {
	received := slices.DeleteFunc(slices.Clone(uplinks), func(u Uplink) bool { return u.Taken })
	if len(ports) == 0 || len(received) == 0 {
		return
	}
	var sets []set
	var rules [][]expr.Any
	for _, f := range families {
		outside, whole := outsideSet(ownedNetdev, f, uplinks), wholeSet(ownedNetdev, f, uplinks)
		if len(outside.keys) == 0 {
			continue
		}
		sets = append(append(sets, notHiddenSet(ownedNetdev, f), outside, whole), f.pieceSets(ownedNetdev)...)
		rules = append(rules, hideRules(f, ports)...)
		if len(whole.keys) > 0 {
			rules = append(rules, hideAllRules(f)...)
		}
		rules = append(rules, hidePrefixRules(f, prefixes)...)
	}
	if len(rules) == 0 {
		return
	}
	p.netdev(ownedNetdev, ports, sets...)
	for _, u := range received {
		p.chains = append(p.chains, chain{
			table: ownedNetdev, name: fmt.Sprintf("ingress_%d", u.Index), kind: "filter",
			hook: unix.NF_NETDEV_INGRESS, priority: priorityIngress, device: u.Name,
			rules: append(passRules(u), rules...), needs: "nf_tables with CONFIG_NF_TABLES_NETDEV",
		})
	}
}

// netdev adds a table of devices with the sets that every one needs, and those of the others that have elements.
func (p *plan) netdev(t table, ports []PortRange, others ...set) {
	p.tables = append(p.tables, t)
	if len(ports) > maxPortRules {
		p.sets = append(p.sets, portSet(t, ports))
	}
	p.sets = append(p.sets, transportSet(t))
	for _, s := range others {
		if len(s.keys) > 0 {
			p.sets = append(p.sets, s)
		}
	}
}

// filter keeps packets that came in by an uplink from leaving by the TAP, where another provider would carry them, and
// packets with our address on the TAP from leaving by an uplink, as they would when the TAP's route goes before the address.
// Packets of the LAN wait as well until a route that somebody took away is back, and their connections go on.
func (p *plan) filter(w Wanted, uplinks []Uplink) {
	p.tables = append(p.tables, ownedInet)
	captured, known := names(ownedInet, setCaptured, w.TAP, w.Upcall), uplinkSet(ownedInet, uplinks)
	p.sets = append(p.sets, known)
	forward := forwardChain(ownedInet)
	if len(captured.keys) > 0 {
		p.sets = append(p.sets, captured)
		forward.rules = append(throughRules(w.TAPIndex, fromNoUplink(w.Turned, known)...), noTransitRule())
	}
	for _, f := range families {
		p.guard(&forward, f, uplinks, f.routed(), w)
	}
	for _, f := range families {
		if w.LAN && w.masquerades(f) && !w.Paused {
			forward.rules = append(forward.rules, leakRules(f.routed())...)
			forward.needs = "nft_ct, nf_conntrack and nft_fib_inet"
		}
	}
	p.chains = append(p.chains, forward)
	p.untracked(w)
	p.output(w)
}

// untracked keeps packets out of conntrack that it would see but some of.
func (p *plan) untracked(w Wanted) {
	if w.TAPIndex == 0 {
		return
	}
	rules := append(untrackedRules(ofIPv4, w.TAPIndex, w.Untracked), untrackedRules(ofIPv6, w.TAPIndex, w.UntrackedV6)...)
	if len(rules) > 0 {
		p.chains = append(p.chains, chain{
			table: ownedInet, name: "prerouting", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: priorityRaw,
			rules: rules, needs: "nft_ct and nft_fib_inet",
		})
	}
}

// untrackedHost keeps the host's own packets by the TAP out of conntrack, of which our fallback alone has the kernel track everything.
// It returns the rules for what comes in, which are at the device where others do not meet them.
func (p *plan) untrackedHost(w Wanted) (in [][]expr.Any) {
	var out [][]expr.Any
	for _, f := range families {
		if !w.untracksHost(f) {
			continue
		}
		for _, k := range w.own(f).keys {
			in = append(in, join(f.packets(), f.to(), equal(k.data), notrack(), accept()))
		}
		out = append(out, join(outBy(w.TAPIndex), f.routed(), notrack()))
	}
	if len(out) > 0 {
		p.chains = append(p.chains, chain{
			table: ownedInet, name: "output_untracked", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: priorityRaw,
			rules: out, needs: "nft_ct",
		})
	}
	return in
}

// output refuses what would leave by an uplink with an address on the TAP. What leaves by the TAP, nearly all, is told first, as that
// takes no lookup.
func (p *plan) output(w Wanted) {
	var rules [][]expr.Any
	for _, f := range families {
		if own := w.own(f); len(own.keys) > 0 {
			p.sets = append(p.sets, own)
			rules = append(rules, untranslatedRule(f))
		}
	}
	if len(rules) == 0 {
		return
	}
	if w.TAPIndex != 0 {
		rules = slices.Insert(rules, 0, join(outBy(w.TAPIndex), accept()))
	}
	p.chains = append(p.chains, chain{
		table: ownedInet, name: "output", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: priorityForward, needs: "nf_tables",
		rules: rules,
	})
}

// guard lets a host on which we switched forwarding on forward from an uplink only what belongs to connections from
// inside, what the user's port forwards translate, and what is exempt.
func (p *plan) guard(forward *chain, f family, uplinks []Uplink, match []expr.Any, w Wanted) {
	guarded := slices.DeleteFunc(slices.Clone(uplinks), func(u Uplink) bool { return !u.guard(f) })
	if len(guarded) == 0 {
		return
	}
	s := uplinkSet(forward.table, guarded)
	s.name = f.of(setGuarded)
	p.sets = append(p.sets, s)
	from := join(match, meta(expr.MetaKeyIIFNAME), f.in(setGuarded))
	p.exempt(forward, exemptSet(forward.table, f, setExempt, w.Exempt), join(from, f.from()))
	p.exempt(forward, exemptSet(forward.table, f, setExemptIn, w.ExemptInsides), join(from, f.to()))
	forward.rules = append(forward.rules, guardRules(from)...)
	forward.needs = "nft_ct and nf_conntrack"
}

// exempt lets in what has an address of a set on the side that is loaded.
func (p *plan) exempt(forward *chain, s set, load []expr.Any) {
	if len(s.keys) > 0 {
		p.sets = append(p.sets, s)
		forward.rules = append(forward.rules, exemptRule(load, s))
	}
}

// fallBack is what survives us: it masquerades forwarded packets that leave by an uplink directly, refuses those that
// would leave as they are, and repeats the guard, since forwarding stays on. Packets from one uplink to another are not
// masqueraded, or we would relay for strangers.
func (p *plan) fallBack(f family, w Wanted, uplinks []Uplink, ports []PortRange) {
	if !w.LAN || f.proto == unix.NFPROTO_IPV6 && !w.IPv6 {
		return
	}
	t := f.fallback
	p.tables = append(p.tables, t)
	p.sets = append(p.sets, uplinkSet(t, uplinks), transportSet(t))
	forward := forwardChain(t)
	forward.rules = throughRules(w.TAPIndex, nil)
	p.guard(&forward, f, uplinks, nil, w)
	forward.priority = priorityRefuse
	if w.masquerades(f) {
		forward.rules = append(append(forward.rules, resetRules()...), leakRules(nil)...)
		forward.needs = fmt.Sprintf("nft_ct, nf_conntrack, nft_fib_%s and nft_reject_%[1]s", f.name)
		forward.without = f.unmasqueraded
		p.chains = append(p.chains, chain{
			table: t, name: "postrouting", kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: prioritySource,
			rules: masqueradeRules(largestGap(ports)), needs: fmt.Sprintf("nft_chain_nat, nft_masq and nft_fib_%s", f.name), without: f.unmasqueraded,
		})
	}
	p.chains = append(p.chains, forward)
}

func forwardChain(t table) chain {
	return chain{table: t, name: "forward", kind: "filter", hook: unix.NF_INET_FORWARD, priority: priorityForward, needs: "nf_tables"}
}

// merge sorts ranges and joins those that touch or overlap; ranges that end before they begin are left out.
func merge(ports []PortRange) (merged []PortRange) {
	sorted := slices.SortedFunc(slices.Values(ports), func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	for _, r := range sorted {
		last := len(merged) - 1
		switch {
		case r.Last < r.First:
		case last >= 0 && int(r.First) <= int(merged[last].Last)+1:
			merged[last].Last = max(merged[last].Last, r.Last)
		default:
			merged = append(merged, r)
		}
	}
	return merged
}

// largestGap is where the kernel may masquerade without meeting the datapath's ports; ok is false when nothing is free.
// ports are as merge leaves them.
func largestGap(ports []PortRange) (gap PortRange, ok bool) {
	next := firstPort
	consider := func(end int) {
		if size := end - next; size > 0 && (!ok || size > int(gap.Last)-int(gap.First)+1) {
			gap, ok = PortRange{uint16(next), uint16(end - 1)}, true
		}
	}
	for _, r := range ports {
		consider(int(r.First))
		next = max(next, int(r.Last)+1)
	}
	consider(65536)
	return gap, ok
}
