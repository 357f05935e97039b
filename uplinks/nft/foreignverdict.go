package nft

import (
	"bytes"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// foreignRule is a rule as a sequence of what matters.
type foreignRule []step

// step is one expression of a rule, or a comparison with what it compares.
type step struct {
	kind    stepKind
	key     expr.MetaKey // of a comparison
	differs bool         // it asks for other values
	values  [][]byte
	set     string // where the values are, while they are to be read
	chain   string // where a jump goes
}

type stepKind uint8

const (
	stepActs stepKind = iota // does something to the packet, counts it, or is unknown
	stepMayMatch
	stepCompares
	stepAccepts
	stepReturns
	stepJumps
	stepGoes // as jumps, without coming back
)

func decodeRule(data []byte) (rule foreignRule, err error) {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, err
	}
	var last expression
	for _, a := range list {
		e, err := decodeExpression(a.Data)
		if err != nil {
			return nil, err
		}
		if s, ok := e.compares(last); ok {
			rule[len(rule)-1] = s
		} else if s, ok := e.step(); ok {
			rule = append(rule, s)
		}
		last = e
	}
	return rule, nil
}

type expression struct {
	name string
	attributes
}

func decodeExpression(data []byte) (expression, error) {
	outer, err := decode(data)
	if err != nil {
		return expression{}, err
	}
	inner, err := decode(outer[unix.NFTA_EXPR_DATA])
	return expression{outer.text(unix.NFTA_EXPR_NAME), inner}, err
}

// compares joins a comparison, or a search in a set, with the meta expression right before it.
func (e expression) compares(before expression) (s step, ok bool) {
	s = step{kind: stepCompares, key: expr.MetaKey(before.number(unix.NFTA_META_KEY))}
	register := uint32(0)
	switch e.name {
	case "cmp":
		data, err := decode(e.attributes[unix.NFTA_CMP_DATA])
		op := expr.CmpOp(e.number(unix.NFTA_CMP_OP))
		register, s.differs, s.values = e.number(unix.NFTA_CMP_SREG), op == expr.CmpOpNeq, [][]byte{data[unix.NFTA_DATA_VALUE]}
		ok = err == nil && (op == expr.CmpOpEq || op == expr.CmpOpNeq)
	case "lookup":
		register, s.set = e.number(unix.NFTA_LOOKUP_SREG), e.text(unix.NFTA_LOOKUP_SET)
		s.differs = e.number(unix.NFTA_LOOKUP_FLAGS) == unix.NFT_LOOKUP_F_INV
		ok = !e.has(unix.NFTA_LOOKUP_DREG) && (s.differs || !e.has(unix.NFTA_LOOKUP_FLAGS) || e.number(unix.NFTA_LOOKUP_FLAGS) == 0)
	}
	loaded := before.name == "meta" && before.has(unix.NFTA_META_DREG) && before.number(unix.NFTA_META_DREG) == register
	return s, ok && loaded
}

// step classifies an expression; ok is false for one that does nothing.
func (e expression) step() (s step, ok bool) {
	switch e.name {
	case "meta", "payload", "ct", "exthdr": // they load, which can fail, or they write
		if e.has(unix.NFTA_META_DREG) { // of the same number in all of them
			return step{kind: stepMayMatch}, true
		}
	case "cmp", "range", "bitwise", "byteorder", "fib", "rt", "socket", "flow_offload": // the last only makes the host faster
		return step{kind: stepMayMatch}, true
	case "lookup":
		if !e.has(unix.NFTA_LOOKUP_DREG) || e.number(unix.NFTA_LOOKUP_DREG) != unix.NFT_REG_VERDICT {
			return step{kind: stepMayMatch, set: e.text(unix.NFTA_LOOKUP_SET)}, true
		}
	case "immediate":
		if e.number(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
			return step{}, false
		}
		return e.verdict()
	}
	return step{kind: stepActs}, true
}

func (e expression) verdict() (s step, ok bool) {
	data, _ := decode(e.attributes[unix.NFTA_IMMEDIATE_DATA])
	verdict, _ := decode(data[unix.NFTA_DATA_VERDICT])
	if !verdict.has(unix.NFTA_VERDICT_CODE) {
		return step{kind: stepActs}, true
	}
	s.chain = verdict.text(unix.NFTA_VERDICT_CHAIN)
	switch code := int32(verdict.number(unix.NFTA_VERDICT_CODE)); code {
	case int32(expr.VerdictAccept):
		s.kind = stepAccepts
	case unix.NFT_RETURN:
		s.kind = stepReturns
	case unix.NFT_JUMP:
		s.kind = stepJumps
	case unix.NFT_GOTO:
		s.kind = stepGoes
	case unix.NFT_CONTINUE:
		return step{}, false
	}
	return s, true // a drop acts, and so does what is unknown
}

// passage is a packet at a hook; a device that is not seen there is nil.
type passage struct{ in, out *device }

// bypassed names the chains that may act on what of a family goes from one of the ports to tap or back.
func (r ruleset) bypassed(of family, tap device, ports []device) (list []string) {
	return r.acting(of, func(c baseChain) []passage { return c.passages(tap, ports) })
}

// metByHost names the chains that may act on what of a family the host itself sends or receives by tap.
func (r ruleset) metByHost(of family, tap device) (list []string) {
	return r.acting(of, func(c baseChain) []passage { return c.hostPassages(tap) })
}

// metAtUplinks names the chains that may act on what of a family comes in for the host itself by one of the uplinks.
func (r ruleset) metAtUplinks(of family, uplinks []device) (list []string) {
	return r.acting(of, func(c baseChain) []passage { return c.receivedPassages(uplinks) })
}

// acting names the chains that may act on packets of a family at one of their passages.
func (r ruleset) acting(of family, passages func(baseChain) []passage) (list []string) {
	for _, c := range r.bases {
		for _, p := range passages(c) {
			if what := r.effect(of, c, p); what != "" {
				list = append(list, line("nftables: chain %s %s", c.chainID, what))
				break
			}
		}
	}
	return list
}

// What a chain may do, for people.
const (
	hasRules = "has rules for such packets"
	drops    = "drops by default"
)

// inetIngress is NF_INET_INGRESS (Linux 5.10), which x/sys lacks.
const inetIngress = 5

// passages are the forwarded packets that a chain sees.
func (c baseChain) passages(tap device, ports []device) (list []passage) {
	if c.atHost() {
		return nil
	}
	if c.atDevices() {
		for _, d := range append([]device{tap}, ports...) {
			if c.at(d.name) {
				list = append(list, c.passageAt(d))
			}
		}
		return list
	}
	if c.nat && c.hook == unix.NF_INET_PRE_ROUTING {
		return []passage{{}} // answers to what is forwarded into the LAN pass as well, and need their translation
	}
	for _, port := range ports {
		if c.hook == unix.NF_INET_PRE_ROUTING {
			list = append(list, passage{in: &port}, passage{in: &tap})
		} else {
			list = append(list, passage{&port, &tap}, passage{&tap, &port})
		}
	}
	return list
}

// hostPassages are the packets of the host itself that a chain sees.
func (c baseChain) hostPassages(tap device) []passage {
	switch {
	case c.atDevices() && c.at(tap.name):
		return []passage{c.passageAt(tap)}
	case c.atDevices(), c.hook == unix.NF_INET_FORWARD:
		return nil
	case c.nat && c.hook == unix.NF_INET_PRE_ROUTING:
		return []passage{{}} // the host may answer what came in by any device and was sent to it
	case c.hook == unix.NF_INET_PRE_ROUTING, c.hook == unix.NF_INET_LOCAL_IN:
		return []passage{{in: &tap}}
	}
	return []passage{{out: &tap}}
}

// receivedPassages are the packets of known connections of the host itself that a chain sees come in. Translation is done with first
// packets.
func (c baseChain) receivedPassages(uplinks []device) (list []passage) {
	if c.nat || !c.atDevices() && c.hook != unix.NF_INET_PRE_ROUTING && c.hook != unix.NF_INET_LOCAL_IN {
		return nil
	}
	for _, d := range uplinks {
		if p := c.passageAt(d); p.in != nil && (!c.atDevices() || c.at(d.name)) {
			list = append(list, p)
		}
	}
	return list
}

// atHost tells the chains that see nothing but what the host itself sends or receives.
func (c baseChain) atHost() bool {
	return !c.atDevices() && (c.hook == unix.NF_INET_LOCAL_IN || c.hook == unix.NF_INET_LOCAL_OUT)
}

// atDevices tells the chains that see only packets of the devices they name.
func (c baseChain) atDevices() bool { return c.family == unix.NFPROTO_NETDEV || c.hook == inetIngress }

func (c baseChain) passageAt(d device) passage {
	if c.family == unix.NFPROTO_NETDEV && c.hook == unix.NF_NETDEV_EGRESS {
		return passage{out: &d}
	}
	return passage{in: &d}
}

func (c baseChain) at(device string) bool {
	return slices.ContainsFunc(c.devices, func(n deviceName) bool {
		return n.name == device || n.prefix && strings.HasPrefix(device, n.name)
	})
}

// effect is "" when the chain certainly lets the packet of a family pass as if there were no chain.
func (r ruleset) effect(of family, c baseChain, p passage) string {
	if !c.sees(of) {
		return ""
	}
	if c.use != len(r.chains[c.chainID]) {
		return hasRules // those that the kernel did not tell could do anything
	}
	w := walk{ruleset: r, passage: p, of: of, seen: map[chainID]outcome{}}
	switch result := w.chain(c.chainID); {
	case result == outcomeActs:
		return hasRules
	case result == outcomePasses && c.drops:
		return drops
	}
	return ""
}

// outcome is what a rule or chain does to a packet, as far as it is certain.
type outcome uint8

const (
	outcomePasses   outcome = iota // goes on, or may be accepted
	outcomeReturns                 // goes on behind the chain
	outcomeAccepted                // for certain
	outcomeActs                    // does something, or may do so
)

// walk takes one packet through the rules.
type walk struct {
	ruleset
	passage
	of   family
	seen map[chainID]outcome // of chains, as many jumps may lead to one
}

func (w walk) chain(id chainID) (result outcome) {
	if known, ok := w.seen[id]; ok {
		return known
	}
	w.seen[id] = outcomeActs // for a circle, which no kernel accepts
	for _, rule := range w.chains[id] {
		if result = w.rule(id, rule); result != outcomePasses {
			break
		}
	}
	if result == outcomeReturns {
		result = outcomePasses
	}
	w.seen[id] = result
	return result
}

func (w walk) rule(in chainID, rule foreignRule) outcome {
	certain := true
	for _, s := range rule {
		switch s.kind {
		case stepMayMatch:
			certain = false
		case stepCompares:
			result, known := w.compare(in.family, s)
			if known && !result {
				return outcomePasses
			}
			certain = certain && known
		default:
			result := w.verdict(in, s)
			if !certain && result != outcomeActs {
				return outcomePasses
			}
			return result
		}
	}
	return outcomePasses
}

func (w walk) verdict(in chainID, s step) outcome {
	switch s.kind {
	case stepAccepts:
		return outcomeAccepted
	case stepReturns:
		return outcomeReturns
	case stepJumps:
		return w.chain(chainID{in.family, in.table, s.chain})
	case stepGoes:
		if result := w.chain(chainID{in.family, in.table, s.chain}); result != outcomePasses {
			return result
		}
		return outcomeReturns
	}
	return outcomeActs
}

// compare decides a comparison where the packet's devices or protocol suffice.
func (w walk) compare(family byte, s step) (result, known bool) {
	value := w.value(family, s.key)
	if value == nil {
		return false, false
	}
	for _, v := range s.values {
		if len(v) == 0 || len(v) > len(value) {
			return false, false
		}
		result = result || bytes.Equal(value[:len(v)], v) // a name without its end is the beginning of many
	}
	return result != s.differs, true
}

// value is what a meta expression loads, or nil when that is not certain.
func (w walk) value(family byte, key expr.MetaKey) []byte {
	switch key {
	case expr.MetaKeyIIFNAME, expr.MetaKeyIIF:
		return w.in.value(key == expr.MetaKeyIIFNAME)
	case expr.MetaKeyOIFNAME, expr.MetaKeyOIF:
		return w.out.value(key == expr.MetaKeyOIFNAME)
	case expr.MetaKeyPROTOCOL:
		return w.of.ether
	case expr.MetaKeyNFPROTO:
		if family != unix.NFPROTO_NETDEV {
			return []byte{w.of.proto}
		}
	}
	return nil
}

func (d *device) value(name bool) []byte {
	switch {
	case d == nil || d.enslaved:
		return nil
	case name:
		return ifname(d.name)
	}
	return native(uint32(d.index))
}
