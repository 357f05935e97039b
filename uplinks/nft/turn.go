package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Turned is a device of the LAN whose packets to the addresses of uplinks come to the TAP, as the kernel takes such addresses
// for its own and would never forward there (RFC 4787 REQ-9). What is not for a mapping is given back.
type Turned struct {
	Name        string
	Index       int
	GiveBackMAC [6]byte // source of frames given back, which must pass
}

// turn sends what LAN hosts send to ports of the pool at an uplink's address out of the TAP, and ICMP errors, and fragments,
// which may be of either; and all that is sent to an outside address of a LAN host's own, and that such a host answers with.
// What has turned comes back by the TAP, and stays out of conntrack, which never sees the answers.
func (p *plan) turn(w Wanted, uplinks []Uplink, ports []PortRange) {
	if len(w.Turned) == 0 || w.TAPIndex == 0 || len(ports) == 0 {
		return
	}
	var sets []set
	var rules [][]expr.Any
	for _, f := range families {
		outside := outsideSet(ownedTurn, f, uplinks)
		if len(outside.keys) == 0 {
			continue
		}
		if !outside.few() {
			sets = append(sets, outside)
		}
		whole, insides := wholeSet(ownedTurn, f, uplinks), insideSet(ownedTurn, f, uplinks)
		sets = append(append(sets, errorSet(ownedTurn, f), whole, insides), f.pieceSets(ownedTurn)...)
		rules = append(rules, turnRules(f, w.TAPIndex, ports, staticRules(f, w.TAPIndex, whole, insides))...)
	}
	if len(rules) == 0 {
		return
	}
	p.netdev(ownedTurn, ports, sets...)
	ofHost := p.untrackedHost(w)
	p.chains = append(p.chains, untrackedAt("untracked", w.TAP, slices.Concat(ofHost, strangersBy(family.from, uplinks), [][]expr.Any{notrack()})))
	for _, u := range uplinks {
		if u.Taken && len(ofHost) > 0 {
			p.chains = append(p.chains, untrackedAt(fmt.Sprintf("untracked_%d", u.Index), u.Name, ofHost))
		}
	}
	for _, d := range w.Turned {
		p.chains = append(p.chains, chain{
			table: ownedTurn, name: fmt.Sprintf("turn_%d", d.Index), kind: "filter",
			hook: unix.NF_NETDEV_INGRESS, priority: priorityIngress, device: d.Name,
			rules: slices.Concat(strangersBy(family.to, uplinks), stayRules(d.GiveBackMAC), rules), needs: "nft_fwd_netdev and nf_tables with CONFIG_NF_TABLES_NETDEV",
		})
	}
}

// untrackedAt is a chain that keeps some of what comes in by a device out of conntrack.
func untrackedAt(name, device string, rules [][]expr.Any) chain {
	return chain{
		table: ownedTurn, name: name, kind: "filter", hook: unix.NF_NETDEV_INGRESS, priority: priorityIngress, device: device,
		rules: rules, needs: "nft_ct and nf_tables with CONFIG_NF_TABLES_NETDEV",
	}
}

// strangersBy let pass what does not have the address of an uplink, nearly all there is.
func strangersBy(side func(family) []expr.Any, uplinks []Uplink) (rules [][]expr.Any) {
	for _, f := range families {
		rules = append(rules, join(f.packets(), side(f), noneOf(outsideSet(ownedTurn, f, uplinks)), accept()))
	}
	return rules
}

// stayRules let pass what is for nobody here whatever it holds.
func stayRules(giveBack [6]byte) [][]expr.Any {
	others := join(meta(expr.MetaKeyPROTOCOL), compare(expr.CmpOpNeq, ofIPv4.ether), compare(expr.CmpOpNeq, ofIPv6.ether), accept())
	return [][]expr.Any{others, givenBackRule(giveBack), ofVLANRule()}
}

// turnRules are for packets to an address of an uplink.
func turnRules(f family, tap int, ports []PortRange, static [][]expr.Any) [][]expr.Any {
	out := outOf(tap)
	rules := [][]expr.Any{
		join(f.packets(), f.whole, meta(expr.MetaKeyL4PROTO), equal([]byte{f.icmp}), payload(expr.PayloadBaseTransportHeader, 0, 1), f.in(setErrors), out),
		join(f.packets(), f.pieces, out),
	}
	rules = append(rules, static...)
	for _, match := range matchPorts(ports) {
		rules = append(rules, join(f.packets(), f.whole, meta(expr.MetaKeyL4PROTO), in(setTransport), payload(expr.PayloadBaseTransportHeader, 2, 2), match, out))
	}
	return rules
}

// staticRules are for what is between addresses that are one inside host's each, and such hosts.
func staticRules(f family, tap int, whole, insides set) (rules [][]expr.Any) {
	if len(whole.keys) > 0 {
		rules = append(rules, join(f.packets(), f.to(), f.in(setWhole), outOf(tap)))
	}
	if len(insides.keys) > 0 {
		rules = append(rules, join(f.packets(), f.from(), f.in(setInsides), outOf(tap)))
	}
	if len(rules) > 0 {
		rules = append(f.discoveryRules(), rules...)
	}
	return rules
}

func outOf(device int) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: native(uint32(device))}, forwardTo{register: 1}}
}

// forwardTo sends a packet out of the device whose index is in a register; the library does not know the statement.
type forwardTo struct {
	expr.Any
	register uint32
}

func (f forwardTo) encode() ([]byte, error) {
	const attrDevice = 1 // NFTA_FWD_SREG_DEV
	data, err := netlink.MarshalAttributes([]netlink.Attribute{number(attrDevice, f.register)})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		text(unix.NFTA_EXPR_NAME, "fwd"), {Type: unix.NFTA_EXPR_DATA | netlink.Nested, Data: data},
	})
}
