package nft

import (
	"encoding/binary"
	"fmt"

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

// setErrors is the name of a set.
const setErrors = "errors"

// typeICMP is how nft numbers ICMP types.
const typeICMP = 14

// turn sends what LAN hosts send to ports of the pool at an uplink's address out of the TAP, and ICMP errors, and fragments,
// which may be of either; and all that is sent to an outside address of a LAN host's own, and that such a host answers with.
func (p *plan) turn(w Wanted, uplinks []Uplink, ports []PortRange) {
	outside := outsideSet(ownedTurn, uplinks)
	if len(w.Turned) == 0 || w.TAPIndex == 0 || len(ports) == 0 || len(outside.keys) == 0 {
		return
	}
	errors := set{table: ownedTurn, name: setErrors, keyType: typeICMP}
	for _, t := range icmpErrors {
		errors.keys = append(errors.keys, key{data: []byte{t}})
	}
	whole, insides := wholeSet(ownedTurn, uplinks), insideSet(ownedTurn, uplinks)
	p.netdev(ownedTurn, ports, outside, errors, whole, insides)
	var static [][]expr.Any
	if len(whole.keys) > 0 {
		static = append(static, join(network(16, 4), in(setWhole), outOf(w.TAPIndex)))
	}
	if len(insides.keys) > 0 {
		static = append(static, join(network(12, 4), in(setInsides), outOf(w.TAPIndex)))
	}
	for _, d := range w.Turned {
		p.chains = append(p.chains, chain{
			table: ownedTurn, name: fmt.Sprintf("turn_%d", d.Index), kind: "filter",
			hook: unix.NF_NETDEV_INGRESS, priority: priorityIngress, device: d.Name,
			rules: turnRules(w.TAPIndex, d.GiveBackMAC, ports, static), needs: "nft_fwd_netdev and nf_tables with CONFIG_NF_TABLES_NETDEV",
		})
	}
}

// icmpErrors are the types that quote a packet.
var icmpErrors = []byte{3, 11, 12}

// turnRules let pass at once what is for nobody here, nearly all there is.
func turnRules(tap int, giveBack [6]byte, ports []PortRange, static [][]expr.Any) [][]expr.Any {
	fragment := join(network(6, 2), mask(binary.BigEndian.AppendUint16(nil, fragmentMask)))
	whole := join(fragment, equal([]byte{0, 0}))
	out := outOf(tap)
	rules := [][]expr.Any{
		join(meta(expr.MetaKeyPROTOCOL), compare(expr.CmpOpNeq, etherIPv4), accept()),
		join(network(16, 4), notIn(setOutside), accept()),
		givenBackRule(giveBack),
		ofVLANRule(),
		join(whole, meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_ICMP}), payload(expr.PayloadBaseTransportHeader, 0, 1), in(setErrors), out),
		join(meta(expr.MetaKeyL4PROTO), in(setFragments), fragment, compare(expr.CmpOpNeq, []byte{0, 0}), out),
	}
	rules = append(rules, static...)
	for _, match := range matchPorts(ports) {
		rules = append(rules, join(whole, meta(expr.MetaKeyL4PROTO), in(setTransport), payload(expr.PayloadBaseTransportHeader, 2, 2), match, out))
	}
	return rules
}

func outOf(device int) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: native(uint32(device))}, forwardTo{register: 1}}
}

// untrackedTurnedRule keeps packets that have turned out of conntrack, which never sees the answers.
func untrackedTurnedRule(tap string) []expr.Any {
	return join(fromIPv4(), meta(expr.MetaKeyIIFNAME), equal(ifname(tap)), network(12, 4), in(setOutside), []expr.Any{&expr.Notrack{}})
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
