package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// family is a version of IP as rules see it.
type family struct {
	name        string // of its modules in the kernel
	ether       []byte // ethertype
	proto       byte   // of netfilter
	domain      int    // of sockets
	legacy      legacy // the program that was before nftables
	source      uint32 // place of the source address in the header, bytes
	destination uint32 // of the destination
	size        uint32 // of an address, bytes
	keyType     uint32 // of a set of addresses
	suffix      string // of the names of its sets
	icmp        byte   // protocol
	icmpErrors  []byte // types that quote a packet
	icmpType    uint32 // of a set of them
	hostsOwn    []byte // protocols whose packets are not hidden whatever they hold
	fallback    table
	// unmasqueraded is the error of a kernel that cannot translate f, where rules do without that.
	unmasqueraded error

	whole  []expr.Any // matches packets that are no fragments
	pieces []expr.Any // matches packets whose ports, if any, are not where those of others are
}

var ofIPv4 = family{
	name: "ipv4", ether: binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP), proto: unix.NFPROTO_IPV4, domain: unix.AF_INET,
	source: 12, destination: 16, size: 4, keyType: typeIPv4,
	icmp: unix.IPPROTO_ICMP, icmpErrors: []byte{3, 11, 12}, icmpType: typeICMP,
	hostsOwn: []byte{unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP}, // IGMP is never translated
	fallback: fallback, legacy: iptables,

	whole:  join(fragmentField(), equal([]byte{0, 0})),
	pieces: join(meta(expr.MetaKeyL4PROTO), in(setFragments), fragmentField(), compare(expr.CmpOpNeq, []byte{0, 0})),
}

// ofIPv6 has all packets with extension headers as pieces, fragments among them: the daemon looks behind those.
var ofIPv6 = family{
	name: "ipv6", ether: binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6), proto: unix.NFPROTO_IPV6, domain: unix.AF_INET6,
	source: 8, destination: 24, size: 16, keyType: typeIPv6, suffix: "6",
	icmp: unix.IPPROTO_ICMPV6, icmpErrors: []byte{1, 2, 3, 4}, icmpType: typeICMPv6,
	hostsOwn: []byte{unix.IPPROTO_ICMP, unix.IPPROTO_IGMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6},
	fallback: fallbackV6, unmasqueraded: ErrNoMasqueradeV6, legacy: ip6tables,

	pieces: join(network(6, 1), in(setExtensions)),
}

// families are all.
var families = []family{ofIPv4, ofIPv6}

func fragmentField() []expr.Any {
	return join(network(6, 2), mask(binary.BigEndian.AppendUint16(nil, fragmentMask)))
}

// has reports whether an address is of f.
func (f family) has(a netip.Addr) bool { return a.IsValid() && uint32(a.BitLen()) == 8*f.size }

// packets matches those of f at a device.
func (f family) packets() []expr.Any { return join(meta(expr.MetaKeyPROTOCOL), equal(f.ether)) }

// routed is packets in a table of both families.
func (f family) routed() []expr.Any { return join(meta(expr.MetaKeyNFPROTO), equal([]byte{f.proto})) }

// from loads the source address.
func (f family) from() []expr.Any { return network(f.source, f.size) }

// to loads the destination address.
func (f family) to() []expr.Any { return network(f.destination, f.size) }

// of is the name of f's set of a kind.
func (f family) of(set string) string { return set + f.suffix }

// in matches when what was loaded is in f's set of a kind.
func (f family) in(set string) []expr.Any { return in(f.of(set)) }

// discoveryRules let pass what never leaves its link, neighbour discovery above all, without which no packet comes to an address.
func (f family) discoveryRules() [][]expr.Any {
	if f.proto == unix.NFPROTO_IPV4 {
		return nil
	}
	return [][]expr.Any{join(f.packets(), meta(expr.MetaKeyL4PROTO), equal([]byte{f.icmp}), payload(expr.PayloadBaseTransportHeader, 0, 1), in(setDiscovery), accept())}
}
