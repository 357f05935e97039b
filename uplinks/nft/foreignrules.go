package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleset is what matters of the rules of others, as of one generation.
type ruleset struct {
	bases  []baseChain               // those that see packets of IP
	chains map[chainID][]foreignRule // what they consist of and may jump to
}

type chainID struct {
	family      byte
	table, name string
}

// baseChain is where the kernel starts.
type baseChain struct {
	chainID
	hook    uint32
	drops   bool // by policy
	nat     bool
	use     int // number of rules
	devices []deviceName
}

// deviceName is a device, or all whose names begin so.
type deviceName struct {
	name   string
	prefix bool
}

func (id chainID) String() string {
	return fmt.Sprintf("%s %s %s", familyNames[id.family], id.table, id.name)
}

// ours tells the tables of this package.
func (id chainID) ours() bool {
	return slices.ContainsFunc(ours, func(t table) bool {
		return t.name == id.table && t.family == id.family
	})
}

// readAttempts bounds how often a ruleset is read that changes meanwhile.
const readAttempts = 5

// refresh reads the rules when the kernel has others than those that were read last. A kernel without nf_tables has none.
func (f *Foreign) refresh() error {
	for range readAttempts {
		current, err := f.readIfChanged()
		if errors.Is(err, ErrNotSupported) {
			f.rules, f.known = ruleset{}, false
			return nil
		}
		if err != nil || current {
			return err
		}
	}
	return fmt.Errorf("nftables: %w: wait until it rests", ErrRulesetChanges)
}

// readIfChanged reports whether what was read before is current, and reads it otherwise.
func (f *Foreign) readIfChanged() (current bool, err error) {
	if f.socket == nil {
		if f.socket, err = openSocket(); err != nil {
			return false, err
		}
	}
	generation, err := f.socket.readGeneration()
	if err != nil {
		return false, err
	}
	if f.known && generation == f.generation {
		return true, nil
	}
	if err := f.socket.settle(); err != nil {
		return false, err
	}
	f.rules, err = f.socket.readRuleset()
	f.known, f.generation = err == nil, generation
	return false, err
}

// settle waits until all of a transaction shows, which has a new generation before: an empty one waits until it is over.
func (s *socket) settle() error { return s.commit(nil) }

func (s *socket) readGeneration() (uint32, error) {
	data, err := s.query(generation())
	if err != nil {
		return 0, err
	}
	attrs, err := decodeMessage(data)
	if err != nil {
		return 0, fmt.Errorf("nftables: decode the generation of the ruleset: %w", err)
	}
	return attrs.number(unix.NFTA_GEN_ID), nil
}

// readRuleset reads the base chains that others put into the way of packets of IP, and the rules of their tables.
func (s *socket) readRuleset() (r ruleset, err error) {
	all := table{}.message(unix.NFT_MSG_GETCHAIN, netlink.Dump)
	all.about = "list of chains"
	chains, err := s.dump(all)
	if err != nil {
		return ruleset{}, err
	}
	r.chains = map[chainID][]foreignRule{}
	read := map[table]bool{}
	for _, data := range chains {
		c, err := decodeChain(data)
		if err != nil {
			return ruleset{}, fmt.Errorf("nftables: decode a chain: %w", err)
		}
		if c == nil || c.ours() || !c.seesIP() {
			continue
		}
		r.bases = append(r.bases, *c)
		if t := (table{name: c.table, family: c.family}); c.use > 0 && !read[t] {
			read[t] = true
			if err := s.readRules(t, r.chains); err != nil {
				return ruleset{}, err
			}
		}
	}
	return r, nil
}

func (s *socket) readRules(t table, chains map[chainID][]foreignRule) error {
	rules, err := s.dump(t.message(unix.NFT_MSG_GETRULE, netlink.Dump, text(unix.NFTA_RULE_TABLE, t.name)))
	if err != nil {
		return err
	}
	for _, data := range rules {
		attrs, err := decodeMessage(data)
		if err != nil {
			return fmt.Errorf("nftables: %s: decode a rule: %w", t, err)
		}
		rule, err := decodeRule(attrs[unix.NFTA_RULE_EXPRESSIONS])
		if err != nil {
			return fmt.Errorf("nftables: %s: decode a rule: %w", t, err)
		}
		for i := range rule {
			if err := s.resolve(t, &rule[i]); err != nil {
				return err
			}
		}
		id := chainID{t.family, t.name, attrs.text(unix.NFTA_RULE_CHAIN)}
		chains[id] = append(chains[id], rule)
	}
	return nil
}

// dump returns all answers to one request. The kernel makes the next part while one is received, so that none is missing
// when nothing is left.
func (s *socket) dump(m message) (answers [][]byte, err error) {
	s.seq++
	out, err := m.append(nil, s.seq)
	if err != nil {
		return nil, err
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("nftables: %s: ask: %w", m.about, os.NewSyscallError("sendto", err))
	}
	replies, err := s.receiveAll()
	if err != nil {
		return nil, err
	}
	for _, r := range replies {
		switch {
		case r.Header.Seq != s.seq: // of a request that failed
			continue
		case r.Header.Type == unix.NLMSG_ERROR || r.Header.Type == unix.NLMSG_DONE:
			if errno := errorOf(r.Data); errno != 0 {
				return nil, failure([]message{m}, 0, errno)
			}
			return answers, nil
		}
		answers = append(answers, r.Data)
	}
	return nil, fmt.Errorf("nftables: %s: the answer has no end after %d messages", m.about, len(answers))
}

// sees reports whether packets of a family may meet the chain.
func (c baseChain) sees(of family) bool {
	return c.family == of.proto || c.family == unix.NFPROTO_INET || c.family == unix.NFPROTO_NETDEV
}

// seesIP reports whether packets of IP may pass the hook. Those of bridges see packets before the bridge itself does, or after.
func (c baseChain) seesIP() bool {
	return c.family == unix.NFPROTO_INET || c.family == unix.NFPROTO_IPV4 || c.family == unix.NFPROTO_IPV6 || c.family == unix.NFPROTO_NETDEV
}

// decodeChain returns nil for what is not a base chain.
func decodeChain(data []byte) (*baseChain, error) {
	attrs, err := decodeMessage(data)
	if err != nil || attrs[unix.NFTA_CHAIN_HOOK] == nil {
		return nil, err
	}
	hook, err := decode(attrs[unix.NFTA_CHAIN_HOOK])
	if err != nil {
		return nil, err
	}
	devices, err := decodeDevices(hook)
	return &baseChain{
		chainID: chainID{data[0], attrs.text(unix.NFTA_CHAIN_TABLE), attrs.text(unix.NFTA_CHAIN_NAME)},
		hook:    hook.number(unix.NFTA_HOOK_HOOKNUM),
		drops:   attrs.number(unix.NFTA_CHAIN_POLICY) == 0,
		use:     int(attrs.number(unix.NFTA_CHAIN_USE)),
		nat:     attrs.text(unix.NFTA_CHAIN_TYPE) == "nat",
		devices: devices,
	}, err
}

// Attributes of the devices of a chain, which x/sys lacks (linux/netfilter/nf_tables.h).
const (
	attrHookDevices = 4
	attrDeviceName  = 1 // since Linux 6.16 the other kind is a prefix
)

func decodeDevices(hook attributes) (list []deviceName, err error) {
	if name := hook.text(unix.NFTA_HOOK_DEV); name != "" {
		list = append(list, deviceName{name: name})
	}
	devices, err := netlink.UnmarshalAttributes(hook[attrHookDevices])
	for _, a := range devices {
		list = append(list, deviceName{unix.ByteSliceToString(a.Data), a.Type&attrTypeMask != attrDeviceName})
	}
	return list, err
}

// attributes are those of one message or nest by type.
type attributes map[uint16][]byte

// attrTypeMask takes away the flags of the type.
const attrTypeMask = ^(netlink.Nested | netlink.NetByteOrder)

func decodeMessage(data []byte) (attributes, error) {
	const header = 4 // nfgenmsg
	if len(data) < header {
		return nil, fmt.Errorf("%d bytes", len(data))
	}
	return decode(data[header:])
}

func decode(data []byte) (attributes, error) {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, err
	}
	attrs := attributes{}
	for _, a := range list {
		attrs[a.Type&attrTypeMask] = a.Data
	}
	return attrs, nil
}

func (a attributes) has(kind uint16) bool { _, ok := a[kind]; return ok }

// number is 0 for what is missing.
func (a attributes) number(kind uint16) uint32 {
	if len(a[kind]) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[kind])
}

func (a attributes) text(kind uint16) string { return unix.ByteSliceToString(a[kind]) }
