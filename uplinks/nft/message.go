package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableOwner is NFT_TABLE_F_OWNER (Linux 5.12): the table dies with the socket that made it.
const tableOwner = 0x2

// maxElements per message keeps a list within the 64 KiB that one netlink attribute can hold.
const maxElements = 1024

// How the nft program, which reads it from the user data of a set, is to print the keys.
const (
	hostEndian = 1
	bigEndian  = 2
)

// message is one request before it has a sequence number.
type message struct {
	kind   netlink.HeaderType
	flags  netlink.HeaderFlags
	header [4]byte // nfgenmsg: family, version, resource
	data   []byte
	about  string // what it is for, in error texts
	needs  string // the kernel part without which it fails
	device string // the device it hooks into
	lack   error  // what it is that the kernel lacks then, nil when it is nothing in particular
	err    error  // of building it
}

// table names a table; set and chain names are unique in one.
type table struct {
	name   string
	family byte
	flags  uint32
}

func (t table) String() string { return fmt.Sprintf("table %s %s", familyNames[t.family], t.name) }

var familyNames = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev"}

func (t table) message(kind int, flags netlink.HeaderFlags, attrs ...netlink.Attribute) message {
	data, err := netlink.MarshalAttributes(attrs)
	return message{
		kind:   netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
		flags:  netlink.Request | flags,
		header: [4]byte{t.family},
		data:   data,
		about:  t.String(),
		needs:  "nf_tables, Linux 5.12 or newer",
		err:    err,
	}
}

func (t table) add() message {
	return t.message(unix.NFT_MSG_NEWTABLE, netlink.Create, text(unix.NFTA_TABLE_NAME, t.name), number(unix.NFTA_TABLE_FLAGS, t.flags))
}

func (t table) remove() message {
	return t.message(unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, t.name))
}

func (t table) get() message {
	return t.message(unix.NFT_MSG_GETTABLE, 0, text(unix.NFTA_TABLE_NAME, t.name))
}

// chain is a base chain.
type chain struct {
	table
	name     string
	kind     string // "filter" or "nat"
	hook     uint32
	priority int32
	device   string // netdev family only
	rules    [][]expr.Any
	needs    string // kernel parts its rules use
	without  error  // what the lack of those parts is, when the rest does without the chain
}

func (c chain) add() message {
	hook := []netlink.Attribute{number(unix.NFTA_HOOK_HOOKNUM, c.hook), number(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))}
	if c.device != "" {
		hook = append(hook, text(unix.NFTA_HOOK_DEV, c.device))
	}
	nested, err := netlink.MarshalAttributes(hook)
	m := c.message(unix.NFT_MSG_NEWCHAIN, netlink.Create,
		text(unix.NFTA_CHAIN_TABLE, c.table.name), text(unix.NFTA_CHAIN_NAME, c.name), text(unix.NFTA_CHAIN_TYPE, c.kind),
		netlink.Attribute{Type: unix.NFTA_CHAIN_HOOK | netlink.Nested, Data: nested})
	m.about = fmt.Sprintf("%s: chain %s", c.table, c.name)
	m.needs, m.lack, m.device, m.err = c.needs, c.without, c.device, errors.Join(m.err, err)
	return m
}

func (c chain) get() message {
	return c.message(unix.NFT_MSG_GETCHAIN, 0, text(unix.NFTA_CHAIN_TABLE, c.table.name), text(unix.NFTA_CHAIN_NAME, c.name))
}

func (c chain) addRule(exprs []expr.Any) message {
	list, err := marshalExprs(c.family, exprs)
	m := c.message(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
		text(unix.NFTA_RULE_TABLE, c.table.name), text(unix.NFTA_RULE_CHAIN, c.name),
		netlink.Attribute{Type: unix.NFTA_RULE_EXPRESSIONS | netlink.Nested, Data: list})
	m.about = fmt.Sprintf("%s: chain %s: rule", c.table, c.name)
	m.needs, m.lack, m.err = c.needs, c.without, errors.Join(m.err, err)
	return m
}

func marshalExprs(family byte, exprs []expr.Any) ([]byte, error) {
	var list []netlink.Attribute
	for _, e := range exprs {
		data, err := encode(family, e)
		if err != nil {
			return nil, err
		}
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | netlink.Nested, Data: data})
	}
	return netlink.MarshalAttributes(list)
}

func encode(family byte, e expr.Any) ([]byte, error) {
	switch own := e.(type) {
	case masqueradePorts:
		return own.encode()
	case forwardTo:
		return own.encode()
	}
	return expr.Marshal(family, e)
}

// set is a named set of keys; those of an interval set are where intervals begin and end.
type set struct {
	table
	name     string
	keyType  uint32 // what nft prints the keys as
	interval bool
	keys     []key
}

type key struct {
	data []byte
	end  bool // the first key after an interval
}

func (s set) messages() []message {
	messages := []message{s.add()}
	for keys := s.keys; len(keys) > 0; {
		n := min(len(keys), maxElements)
		messages = append(messages, s.addKeys(keys[:n]))
		keys = keys[n:]
	}
	return messages
}

func (s set) add() message {
	order := uint32(bigEndian)
	if s.keyType == typeIfname {
		order = hostEndian
	}
	attrs := []netlink.Attribute{
		text(unix.NFTA_SET_TABLE, s.table.name), text(unix.NFTA_SET_NAME, s.name),
		number(unix.NFTA_SET_KEY_TYPE, s.keyType), number(unix.NFTA_SET_KEY_LEN, uint32(len(s.keys[0].data))), number(unix.NFTA_SET_ID, 1),
		{Type: unix.NFTA_SET_USERDATA, Data: userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, order)},
	}
	var err error
	if s.interval {
		attrs = append(attrs, number(unix.NFTA_SET_FLAGS, unix.NFT_SET_INTERVAL))
	} else { // the kernel then takes a hash table that need not grow
		var size []byte
		size, err = netlink.MarshalAttributes([]netlink.Attribute{number(unix.NFTA_SET_DESC_SIZE, uint32(len(s.keys)))})
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_SET_DESC | netlink.Nested, Data: size})
	}
	add := s.message(unix.NFT_MSG_NEWSET, netlink.Create, attrs...)
	add.about, add.err = fmt.Sprintf("%s: set %s", s.table, s.name), errors.Join(add.err, err)
	return add
}

func (s set) addKeys(keys []key) message {
	var list []netlink.Attribute
	var errs error
	for _, k := range keys {
		data, err := k.marshal()
		errs = errors.Join(errs, err)
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | netlink.Nested, Data: data})
	}
	data, err := netlink.MarshalAttributes(list)
	m := s.message(unix.NFT_MSG_NEWSETELEM, netlink.Create,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, s.table.name), text(unix.NFTA_SET_ELEM_LIST_SET, s.name),
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | netlink.Nested, Data: data})
	m.about = fmt.Sprintf("%s: set %s: elements", s.table, s.name)
	m.err = errors.Join(m.err, errs, err)
	return m
}

func (k key) marshal() ([]byte, error) {
	value, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_DATA_VALUE, Data: k.data}})
	if err != nil {
		return nil, err
	}
	attrs := []netlink.Attribute{{Type: unix.NFTA_SET_ELEM_KEY | netlink.Nested, Data: value}}
	if k.end {
		attrs = append(attrs, number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END))
	}
	return netlink.MarshalAttributes(attrs)
}

func batchMarker(kind netlink.HeaderType) message {
	return message{kind: kind, flags: netlink.Request, header: [4]byte{2: unix.NFNL_SUBSYS_NFTABLES >> 8, 3: unix.NFNL_SUBSYS_NFTABLES}, about: "the ruleset"}
}

func generation() message {
	return message{kind: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, flags: netlink.Request, about: "the ruleset", needs: "nf_tables"}
}

// append encodes m behind b.
func (m message) append(b []byte, seq uint32) ([]byte, error) {
	if m.err != nil {
		return nil, fmt.Errorf("nftables: %s: encode: %w", m.about, m.err)
	}
	payload := append(m.header[:], m.data...)
	for len(payload)%unix.NLMSG_ALIGNTO != 0 {
		payload = append(payload, 0)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.kind))
	b = binary.NativeEndian.AppendUint16(b, uint16(m.flags))
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, payload...), nil
}

// explain turns an errno into what can be done about it. The kernel refuses a caller without the capability at the first
// message, before it looks at any table.
func (m message) explain(errno syscall.Errno, first bool) error {
	switch {
	case errno == unix.EPERM && first:
		return fmt.Errorf("%w (%w)", ErrNoPermission, errno)
	case errno == unix.EPERM:
		return fmt.Errorf("%w (%w)", ErrOwned, errno)
	case errno == unix.ENOENT && m.device != "":
		return fmt.Errorf("%s: %w (%w; or the kernel lacks %s)", m.device, ErrNoDevice, errno, m.needs)
	case errno == unix.ENOENT && m.kind&0xff == unix.NFT_MSG_NEWCHAIN, errno == unix.ENOENT && m.kind&0xff == unix.NFT_MSG_NEWRULE,
		errno == unix.EOPNOTSUPP, errno == unix.EAFNOSUPPORT, errno == unix.EINVAL && first:
		err := fmt.Errorf("%w (%w): load or build %s", ErrNotSupported, errno, m.needs)
		if m.lack != nil {
			err = fmt.Errorf("%w: %w", m.lack, err)
		}
		return err
	}
	return errno
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, n)}
}
