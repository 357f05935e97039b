package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Values and bits of the conntrack fields (linux/netfilter/nf_conntrack_common.h).
const (
	ctOriginal             = 0
	ctInvalid              = 1
	ctEstablishedOrRelated = 2 | 4
	ctNew                  = 8
	ctStatusConfirmed      = 1 << 3 // not of a connection's first packet
	ctStatusSNAT           = 1 << 4
	ctStatusDNAT           = 1 << 5
)

// tcpSYN is among the flags of TCP (RFC 9293 section 3.1).
const tcpSYN = 0x02

// fragmentMask selects the more-fragments bit and the offset (RFC 791).
const fragmentMask = 0x3fff

// vlanMask selects the VLAN of a tag.
const vlanMask = 0x0fff

// passRules let pass what is not for an uplink's datapath whatever it holds.
func passRules(u Uplink) (rules [][]expr.Any) {
	if u.GiveBackMAC != [6]byte{} {
		rules = append(rules, givenBackRule(u.GiveBackMAC))
	}
	if !u.HeaderLess {
		rules = append(rules, ofVLANRule())
	}
	return rules
}

// hideRules drop the packets of a family that belong, or may belong, to the datapath.
func hideRules(f family, ports []PortRange) (rules [][]expr.Any) {
	ours := join(f.packets(), f.to(), f.in(setOutside))
	for _, match := range matchPorts(ports) {
		rules = append(rules, join(ours, meta(expr.MetaKeyL4PROTO), in(setTransport), f.whole,
			payload(expr.PayloadBaseTransportHeader, 2, 2), match, drop()))
	}
	return append(rules,
		join(ours, f.pieces, drop()),
		join(ours, meta(expr.MetaKeyL4PROTO), notIn(f.of(setNotHidden)), drop()),
	)
}

// hideAllRules drop all that is sent to an address of an inside host's own.
func hideAllRules(f family) [][]expr.Any {
	return append(f.discoveryRules(), join(f.packets(), f.to(), f.in(setWhole), drop()))
}

// hidePrefixRules drop all that is sent into a prefix, but to an address of an uplink. They compare, as a set of intervals finds
// nothing for a moment after a change.
func hidePrefixRules(f family, prefixes []netip.Prefix) (rules [][]expr.Any) {
	for _, p := range prefixes {
		if f.has(p.Addr()) {
			bits := net.CIDRMask(p.Bits(), p.Addr().BitLen())
			rules = append(rules, join(f.packets(), f.to(), notIn(f.of(setOutside)), mask(bits), equal(p.Masked().Addr().AsSlice()), drop()))
		}
	}
	if len(rules) > 0 {
		rules = append(f.discoveryRules(), rules...)
	}
	return rules
}

// givenBackRule lets pass what we hand back to the host's stack. On a header-less device nothing else has the source
// address that it looks at, and the rule matches nothing else.
func givenBackRule(mac [6]byte) []expr.Any {
	return join(payload(expr.PayloadBaseLLHeader, 6, 6), equal(mac[:]), accept())
}

// ofVLANRule lets pass frames of a VLAN above this device, which are not for this uplink. The kernel has taken the tag off and
// shows it nevertheless. One with a priority and no VLAN (IEEE 802.1Q) makes no difference.
func ofVLANRule() []expr.Any {
	return join(payload(expr.PayloadBaseLLHeader, 12, 2), compare(expr.CmpOpNeq, ofIPv4.ether), compare(expr.CmpOpNeq, ofIPv6.ether),
		payload(expr.PayloadBaseLLHeader, 14, 2), mask(binary.BigEndian.AppendUint16(nil, vlanMask)),
		compare(expr.CmpOpNeq, []byte{0, 0}), accept())
}

func noTransitRule() []expr.Any {
	return join(meta(expr.MetaKeyIIFNAME), in(setUplinks), meta(expr.MetaKeyOIFNAME), in(setCaptured), drop())
}

// throughRules let pass at once what comes from the TAP or goes there, nearly all there is, as no later rule concerns it; from says
// what else must hold for where it came in.
func throughRules(tap int, from ...[]expr.Any) (rules [][]expr.Any) {
	if tap == 0 {
		return nil
	}
	for _, match := range from {
		rules = append(rules, join(outBy(tap), match, accept()))
	}
	return append(rules, join(inBy(tap), accept()))
}

// fromNoUplink are matches of which one holds for what came in by no uplink. Those for devices of the LAN come first, as an index
// is compared faster than names.
func fromNoUplink(lan []Turned, uplinks set) (from [][]expr.Any) {
	for _, d := range lan[:min(len(lan), fewKeys)] {
		from = append(from, inBy(d.Index))
	}
	return append(from, join(meta(expr.MetaKeyIIFNAME), noneOf(uplinks)))
}

// inBy matches what came in by a device.
func inBy(index int) []expr.Any { return join(meta(expr.MetaKeyIIF), equal(native(uint32(index)))) }

// outBy matches what leaves by a device.
func outBy(index int) []expr.Any { return join(meta(expr.MetaKeyOIF), equal(native(uint32(index)))) }

// untrackedRules match what goes from one of the ports to the TAP, and back.
func untrackedRules(f family, tap int, ports []int) (rules [][]expr.Any) {
	for _, port := range ports {
		rules = append(rules, untrackedRule(f, port, tap), untrackedRule(f, tap, port))
	}
	return rules
}

// untrackedRule matches what goes from one device to another. The slow lookup comes last.
func untrackedRule(f family, from, to int) []expr.Any {
	return join(inBy(from), f.routed(),
		[]expr.Any{&expr.Fib{Register: 1, FlagDADDR: true, ResultOIF: true}}, equal(native(uint32(to))), notrack())
}

func untranslatedRule(f family) []expr.Any {
	return join(f.routed(), f.from(), f.in(setOwn), meta(expr.MetaKeyOIFNAME), in(setUplinks), drop())
}

// exemptRule accepts what an exempt remote or inside host is an end of: of connections that bypass the host's own forwarding it
// has seen nothing.
func exemptRule(load []expr.Any, s set) []expr.Any { return join(load, in(s.name), accept()) }

// guardRules, for what comes from a guarded uplink, accept what belongs to a connection or is translated by a port forward, and drop the rest. A rule that asks
// for connection tracking does not match a packet without any (an invalid one), so the drop must not ask.
func guardRules(from []expr.Any) [][]expr.Any {
	return [][]expr.Any{
		join(from, conntrack(expr.CtKeySTATE, ctEstablishedOrRelated), accept()),
		join(from, conntrack(expr.CtKeySTATUS, ctStatusDNAT), accept()),
		join(from, drop()),
	}
}

// masqueradeRules keep TCP and UDP within gap, so that their answers are not taken for the datapath's.
func masqueradeRules(gap PortRange, ok bool) [][]expr.Any {
	rest := fromLAN(nil, []expr.Any{&expr.Masq{}})
	if !ok {
		return [][]expr.Any{rest}
	}
	return [][]expr.Any{fromLAN(join(meta(expr.MetaKeyL4PROTO), in(setTransport)), masqueradeTo(gap)), rest}
}

// fromLAN does then with packets of the LAN that leave by an uplink, when they also match when. The slow lookup comes last.
func fromLAN(when, then []expr.Any) []expr.Any {
	return join(
		meta(expr.MetaKeyOIFNAME), in(setUplinks),
		meta(expr.MetaKeyIIFNAME), notIn(setUplinks),
		when,
		[]expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}}, compare(expr.CmpOpNeq, native(unix.RTN_LOCAL)),
		then,
	)
}

// leakRules stop what masqueradeRules would translate, were it not that only the first packet of a connection meets
// them: packets of connections that went into the TAP as they were, and packets of none.
func leakRules(match []expr.Any) [][]expr.Any {
	return [][]expr.Any{
		fromLAN(join(match, settled()), drop()),
		fromLAN(join(match, unseen()), drop()),
		fromLAN(join(match, conntrack(expr.CtKeySTATE, ctInvalid)), drop()),
	}
}

// resetRules tell the TCP sockets of the LAN, so that applications connect anew.
func resetRules() [][]expr.Any {
	reset := []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	return [][]expr.Any{fromLAN(join(ofTCP(), settled()), reset), fromLAN(unseen(), reset)}
}

func ofTCP() []expr.Any { return join(meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_TCP})) }

// unseen matches what TCP connections send of whose beginning conntrack knows nothing, which it would take for new ones.
func unseen() []expr.Any {
	return join(
		ofTCP(), conntrack(expr.CtKeySTATE, ctNew),
		payload(expr.PayloadBaseTransportHeader, 13, 1), mask([]byte{tcpSYN}), equal([]byte{0}),
	)
}

// settled matches what connections send that were not translated when they began. Replies need no translation of their own.
func settled() []expr.Any {
	return join(
		[]expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}}, equal([]byte{ctOriginal}),
		[]expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}}, mask(native(ctStatusConfirmed|ctStatusSNAT)), equal(native(ctStatusConfirmed)),
	)
}

func masqueradeTo(r PortRange) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: port(r.First)},
		&expr.Immediate{Register: 2, Data: port(r.Last)},
		masqueradePorts{&expr.Masq{ToPorts: true, RegProtoMin: 1, RegProtoMax: 2}},
	}
}

// masqueradePorts is a masquerade that keeps to its ports: the library leaves out the flag without which the kernel
// ignores them.
type masqueradePorts struct{ *expr.Masq }

func (m masqueradePorts) encode() ([]byte, error) {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		number(unix.NFTA_MASQ_FLAGS, unix.NF_NAT_RANGE_PROTO_SPECIFIED),
		number(unix.NFTA_MASQ_REG_PROTO_MIN, m.RegProtoMin),
		number(unix.NFTA_MASQ_REG_PROTO_MAX, m.RegProtoMax),
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		text(unix.NFTA_EXPR_NAME, "masq"), {Type: unix.NFTA_EXPR_DATA | netlink.Nested, Data: data},
	})
}

func join(parts ...[]expr.Any) (rule []expr.Any) {
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}

func meta(key expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: key, Register: 1}} }

func network(offset, length uint32) []expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, offset, length)
}

func payload(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func in(set string) []expr.Any { return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set}} }

func notIn(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set, Invert: true}}
}

// fewKeys is up to how many keys are compared one after the other, which takes less time than a lookup, as that calls and hashes.
const fewKeys = 4

// few reports whether noneOf compares the keys of s, so that it looks into no set.
func (s set) few() bool { return len(s.keys) <= fewKeys }

// noneOf matches when what was loaded is no key of s, which holds no intervals.
func noneOf(s set) (match []expr.Any) {
	if !s.few() {
		return notIn(s.name)
	}
	for _, k := range s.keys {
		match = append(match, compare(expr.CmpOpNeq, k.data)...)
	}
	return match
}

func equal(data []byte) []expr.Any { return compare(expr.CmpOpEq, data) }

// matchPorts are matches of which one holds for each port: comparisons where those are not too many, as the kernel fills a set of
// intervals only a moment after the rules that look there are in force, and the host would answer what arrives meanwhile.
func matchPorts(ports []PortRange) (matches [][]expr.Any) {
	if len(ports) > maxPortRules {
		return [][]expr.Any{in(setPorts)}
	}
	for _, r := range ports {
		matches = append(matches, join(compare(expr.CmpOpGte, port(r.First)), compare(expr.CmpOpLte, port(r.Last))))
	}
	return matches
}

func compare(op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: op, Register: 1, Data: data}}
}

func mask(bits []byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(bits)), Mask: bits, Xor: make([]byte, len(bits))}}
}

// conntrack matches when any of the bits is set.
func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return join([]expr.Any{&expr.Ct{Key: key, Register: 1}}, mask(native(bits)), compare(expr.CmpOpNeq, native(0)))
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func notrack() []expr.Any { return []expr.Any{&expr.Notrack{}} }

// chainUse reads the number of rules from the kernel's description of a base chain.
func chainUse(data []byte) (int, error) {
	const header = 4 // nfgenmsg
	if len(data) < header {
		return 0, fmt.Errorf("%d bytes", len(data))
	}
	attrs, err := netlink.UnmarshalAttributes(data[header:])
	if err != nil {
		return 0, err
	}
	for _, a := range attrs {
		if a.Type == unix.NFTA_CHAIN_USE && len(a.Data) == 4 {
			return int(binary.BigEndian.Uint32(a.Data)), nil
		}
	}
	return 0, fmt.Errorf("no rule count")
}
