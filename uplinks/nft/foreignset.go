package nft

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of a set whose elements count or limit, which x/sys lacks (linux/netfilter/nf_tables.h).
const (
	attrSetExpression  = 0x11
	attrSetExpressions = 0x12
)

// resolve looks up the set that a step asks for, and gives a comparison the values there.
func (s *socket) resolve(t table, to *step) error {
	if to.set == "" {
		return nil
	}
	err := s.resolveSet(t, to)
	if errors.Is(err, unix.ENOENT) {
		to.kind = stepActs // removed meanwhile, so everything is read again
		return nil
	}
	return err
}

func (s *socket) resolveSet(t table, to *step) error {
	data, err := s.query(t.message(unix.NFT_MSG_GETSET, 0, text(unix.NFTA_SET_TABLE, t.name), text(unix.NFTA_SET_NAME, to.set)))
	if err != nil {
		return err
	}
	set, err := decodeMessage(data)
	if err != nil {
		return fmt.Errorf("nftables: %s: decode the set %s: %w", t, to.set, err)
	}
	switch {
	case set.has(attrSetExpression) || set.has(attrSetExpressions):
		to.kind = stepActs
	case to.kind != stepCompares:
	case set.number(unix.NFTA_SET_FLAGS)&^unix.NFT_SET_ANONYMOUS != unix.NFT_SET_CONSTANT:
		to.kind = stepMayMatch // it may change without a new generation, or holds intervals
	default:
		to.values, err = s.readElements(t, to.set)
	}
	return err
}

func (s *socket) readElements(t table, set string) (values [][]byte, err error) {
	parts, err := s.dump(t.message(unix.NFT_MSG_GETSETELEM, netlink.Dump,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, t.name), text(unix.NFTA_SET_ELEM_LIST_SET, set)))
	if err != nil {
		return nil, err
	}
	for _, data := range parts {
		more, err := decodeElements(data)
		if err != nil {
			return nil, fmt.Errorf("nftables: %s: decode the elements of the set %s: %w", t, set, err)
		}
		values = append(values, more...)
	}
	return values, nil
}

func decodeElements(data []byte) (values [][]byte, err error) {
	part, err := decodeMessage(data)
	if err != nil {
		return nil, err
	}
	list, err := netlink.UnmarshalAttributes(part[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
	for _, a := range list {
		element, elementErr := decode(a.Data)
		key, keyErr := decode(element[unix.NFTA_SET_ELEM_KEY])
		values, err = append(values, key[unix.NFTA_DATA_VALUE]), errors.Join(err, elementErr, keyErr)
	}
	return values, err
}
