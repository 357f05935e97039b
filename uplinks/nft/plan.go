package nft

import (
	"cmp"
	"encoding/binary"
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
)

// The places of our chains among those of others.
const (
	priorityIngress = -300 // as early as raw
	priorityRaw     = -300
	priorityForward = -10 // before the filters of users, who need not count what never passes
	priorityRefuse  = -9  // after our own drops, which spare connections while we live
	prioritySource  = 110 // after srcnat: who translates on purpose comes first
)

// Set names.
const (
	setUplinks   = "uplinks"
	setGuarded   = "guarded"
	setExempt    = "exempt"
	setCaptured  = "capture_devices"
	setPorts     = "ports"
	setTransport = "transport"
	setFragments = "fragments"
	setNotHidden = "not_hidden"
	setOutside   = "outside"
	setWhole     = "whole"
	setInsides   = "insides"
)

// Key types as nft numbers them, so that it prints the sets readably.
const (
	typeIPv4    = 7
	typeProto   = 12
	typeService = 13
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
var ours = []table{ownedNetdev, ownedTurn, ownedInet, fallback}

func newPlan(w Wanted) plan {
	p := plan{}
	uplinks := slices.SortedFunc(slices.Values(w.Uplinks), func(a, b Uplink) int { return cmp.Compare(a.Name, b.Name) })
	ports := merge(w.Ports)
	if len(uplinks) > 0 {
		p.hide(uplinks, ports)
		p.turn(w, uplinks, ports)
		p.filter(w, uplinks)
		p.fallBack(w, uplinks, ports)
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
// nor answers it: ports of the pool, fragments, since later ones have no port, and protocols without ports. What it gives back
// passes, as does everything else. The addresses are those of all uplinks, as it may be for a mapping of another one.
func (p *plan) hide(uplinks []Uplink, ports []PortRange) {
	received := slices.DeleteFunc(slices.Clone(uplinks), func(u Uplink) bool { return u.Taken })
	if len(ports) == 0 || len(received) == 0 || len(outsideSet(ownedNetdev, uplinks).keys) == 0 {
		return
	}
	whole := wholeSet(ownedNetdev, uplinks)
	p.netdev(ownedNetdev, ports, notHiddenSet(ownedNetdev), outsideSet(ownedNetdev, uplinks), whole)
	for _, u := range received {
		rules := hideRules(u, ports)
		if len(whole.keys) > 0 {
			rules = append(rules, hideAllRule())
		}
		p.chains = append(p.chains, chain{
			table: ownedNetdev, name: fmt.Sprintf("ingress_%d", u.Index), kind: "filter",
			hook: unix.NF_NETDEV_INGRESS, priority: priorityIngress, device: u.Name,
			rules: rules, needs: "nf_tables with CONFIG_NF_TABLES_NETDEV",
		})
	}
}

// netdev adds a table of devices with the sets that every one needs, and those of the others that have elements.
func (p *plan) netdev(t table, ports []PortRange, others ...set) {
	p.tables = append(p.tables, t)
	if len(ports) > maxPortRules {
		p.sets = append(p.sets, portSet(t, ports))
	}
	p.sets = append(p.sets, transportSet(t), fragmentSet(t))
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
	captured := names(ownedInet, setCaptured, w.TAP, w.Upcall)
	p.sets = append(p.sets, uplinkSet(ownedInet, uplinks))
	forward := forwardChain(ownedInet)
	if len(captured.keys) > 0 {
		p.sets = append(p.sets, captured)
		forward.rules = append(throughRules(w.TAPIndex, notIn(setUplinks)), noTransitRule())
	}
	p.guard(&forward, uplinks, fromIPv4(), w.Exempt)
	if w.LAN {
		forward.rules = append(forward.rules, leakRules(fromIPv4())...)
		forward.needs = "nft_ct, nf_conntrack and nft_fib_inet"
	}
	p.chains = append(p.chains, forward)
	untracked := untrackedRules(w.TAP, w.Untracked)
	if outside := outsideSet(ownedInet, uplinks); len(w.Turned) > 0 && len(outside.keys) > 0 {
		p.sets = append(p.sets, outside)
		untracked = append(untracked, untrackedTurnedRule(w.TAP))
	}
	if len(untracked) > 0 {
		p.chains = append(p.chains, chain{
			table: ownedInet, name: "prerouting", kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: priorityRaw,
			rules: untracked, needs: "nft_ct and nft_fib_inet",
		})
	}
	if w.Address.Is4() {
		p.chains = append(p.chains, chain{
			table: ownedInet, name: "output", kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: priorityForward, needs: "nf_tables",
			rules: [][]expr.Any{untranslatedRule(w.Address)},
		})
	}
}

// guard lets a host on which we switched forwarding on forward from an uplink only what belongs to connections from
// inside, what the user's port forwards translate, and what comes from exempt remotes.
func (p *plan) guard(forward *chain, uplinks []Uplink, match []expr.Any, exempt []netip.Prefix) {
	guarded := slices.DeleteFunc(slices.Clone(uplinks), func(u Uplink) bool { return !u.Guard })
	if len(guarded) == 0 {
		return
	}
	s := uplinkSet(forward.table, guarded)
	s.name = setGuarded
	p.sets = append(p.sets, s)
	if len(exempt) > 0 {
		p.sets = append(p.sets, exemptSet(forward.table, exempt))
		forward.rules = append(forward.rules, exemptRule(match))
	}
	forward.rules = append(forward.rules, guardRules(match)...)
	forward.needs = "nft_ct and nf_conntrack"
}

// fallBack is what survives us: it masquerades forwarded packets that leave by an uplink directly, refuses those that
// would leave as they are, and repeats the guard, since forwarding stays on. Packets from one uplink to another are not
// masqueraded, or we would relay for strangers.
func (p *plan) fallBack(w Wanted, uplinks []Uplink, ports []PortRange) {
	if !w.LAN {
		return
	}
	p.tables = append(p.tables, fallback)
	p.sets = append(p.sets, uplinkSet(fallback, uplinks), transportSet(fallback))
	forward := forwardChain(fallback)
	forward.rules = throughRules(w.TAPIndex, nil)
	p.guard(&forward, uplinks, nil, w.Exempt)
	forward.priority = priorityRefuse
	forward.rules = append(append(forward.rules, resetRule()), leakRules(nil)...)
	forward.needs = "nft_ct, nf_conntrack, nft_fib_ipv4 and nft_reject_ipv4"
	p.chains = append(p.chains, chain{
		table: fallback, name: "postrouting", kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: prioritySource,
		rules: masqueradeRules(largestGap(ports)), needs: "nft_chain_nat, nft_masq and nft_fib_ipv4",
	}, forward)
}

func forwardChain(t table) chain {
	return chain{table: t, name: "forward", kind: "filter", hook: unix.NF_INET_FORWARD, priority: priorityForward, needs: "nf_tables"}
}

func uplinkSet(t table, uplinks []Uplink) set {
	var list []string
	for _, u := range uplinks {
		list = append(list, u.Name)
	}
	return names(t, setUplinks, list...)
}

// names is a set of those interface names that are not empty.
func names(t table, name string, list ...string) set {
	s := set{table: t, name: name, keyType: typeIfname}
	for _, n := range list {
		if n != "" {
			s.keys = append(s.keys, key{data: ifname(n)})
		}
	}
	return s
}

func ifname(name string) []byte {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return data
}

func addressSet(t table, name string, list []netip.Addr) set {
	s := set{table: t, name: name, keyType: typeIPv4}
	addresses := slices.SortedFunc(slices.Values(list), netip.Addr.Compare)
	for _, a := range slices.Compact(addresses) {
		if a.Is4() {
			s.keys = append(s.keys, key{data: a.AsSlice()})
		}
	}
	return s
}

// outsideSet is the addresses of all uplinks.
func outsideSet(t table, uplinks []Uplink) set {
	return addressSet(t, setOutside, collect(uplinks, func(u Uplink) []netip.Addr { return u.Addresses }))
}

// wholeSet is those of the addresses that are one inside host's each.
func wholeSet(t table, uplinks []Uplink) set {
	return addressSet(t, setWhole, collect(uplinks, func(u Uplink) []netip.Addr { return u.Whole }))
}

// insideSet is these hosts.
func insideSet(t table, uplinks []Uplink) set {
	return addressSet(t, setInsides, collect(uplinks, func(u Uplink) []netip.Addr { return u.Insides }))
}

func collect(uplinks []Uplink, of func(Uplink) []netip.Addr) (list []netip.Addr) {
	for _, u := range uplinks {
		list = append(list, of(u)...)
	}
	return list
}

func transportSet(t table) set { return protocols(t, setTransport, unix.IPPROTO_TCP, unix.IPPROTO_UDP) }

// fragmentSet is the protocols of whose packets fragments are hidden, beside those that are hidden whole.
func fragmentSet(t table) set {
	return protocols(t, setFragments, unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
}

// notHiddenSet is the protocols whose packets are not hidden whatever they hold. IGMP is never translated.
func notHiddenSet(t table) set {
	return protocols(t, setNotHidden, unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP)
}

func protocols(t table, name string, numbers ...byte) set {
	s := set{table: t, name: name, keyType: typeProto}
	for _, n := range numbers {
		s.keys = append(s.keys, key{data: []byte{n}})
	}
	return s
}

func portSet(t table, ports []PortRange) set {
	s := set{table: t, name: setPorts, keyType: typeService, interval: true}
	for _, r := range ports {
		s.keys = append(s.keys, key{data: port(r.First)})
		if r.Last < 65535 { // the interval that reaches the end of the number space has no end element
			s.keys = append(s.keys, key{data: port(r.Last + 1), end: true})
		}
	}
	return s
}

// exemptSet is the prefixes as intervals, of which those that touch or overlap are one.
func exemptSet(t table, prefixes []netip.Prefix) set {
	s := set{table: t, name: setExempt, keyType: typeIPv4, interval: true}
	sorted := slices.SortedFunc(slices.Values(prefixes), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var covered netip.Prefix
	for _, p := range sorted {
		if covered.IsValid() && covered.Overlaps(p) {
			continue // the wider one came first
		}
		covered = p
		start := p.Addr().AsSlice()
		if last := len(s.keys) - 1; last > 0 && slices.Equal(s.keys[last].data, start) {
			s.keys = s.keys[:last] // the interval before goes on
		} else {
			s.keys = append(s.keys, key{data: start})
		}
		if end := binary.BigEndian.Uint32(start) + 1<<(32-p.Bits()); end != 0 { // else it reaches the end of the number space
			s.keys = append(s.keys, key{data: binary.BigEndian.AppendUint32(nil, end), end: true})
		}
	}
	return s
}

func port(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

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
