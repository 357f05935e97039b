package craft

import (
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// allNodes hears what answers a question without a sender, and the Ethernet address of that group (RFC 4861 §7.2.4, RFC 2464 §7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = [6]byte{0x33, 0x33, 5: 1}
)

// onLink is the hop limit of neighbour discovery, which no router has passed on (RFC 4861 §7.1).
const onLink = 255

// Flags of a neighbour advertisement (RFC 4861 §4.4).
const (
	flagRouter    = 0x80
	flagSolicited = 0x40
	flagOverride  = 0x20
)

// Solicited reads a neighbour solicitation (RFC 4861 §4.3) from its ICMPv6 type on: the address that is asked for, and whether
// the sender tells its link-layer address. False when its code or an option is not valid (§7.1.1).
func Solicited(message []byte) (target netip.Addr, sourced, ok bool) {
	var in layers.ICMPv6NeighborSolicitation
	if len(message) < 4 || message[1] != 0 || in.DecodeFromBytes(message[4:], gopacket.NilDecodeFeedback) != nil {
		return target, false, false
	}
	for _, o := range in.Options {
		sourced = sourced || o.Type == layers.ICMPv6OptSourceAddress
	}
	target, ok = netip.AddrFromSlice(in.TargetAddress)
	return target, sourced, ok
}

// Advertisement returns a buffer (virtio header and frame) in which the router with the address target answers a solicitation
// from another node, or to all nodes where that has no address yet (RFC 4861 §7.2.4).
func Advertisement(l Link, target, to netip.Addr) []byte {
	flags := uint8(flagRouter | flagOverride)
	if to.IsUnspecified() {
		to, l.Destination = allNodes, allNodesMAC
	} else {
		flags |= flagSolicited
	}
	ip := ipv6(target, to, layers.IPProtocolICMPv6)
	ip.HopLimit = onLink
	icmp := icmpv6(ip, layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0))
	return serialise(l, ip, icmp, &layers.ICMPv6NeighborAdvertisement{
		Flags: flags, TargetAddress: target.AsSlice(),
		Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: l.Source[:]}},
	})
}
