// Package craft builds whole packets of both families off the hot path: ICMP errors, TCP resets and neighbour
// advertisements that the gateway answers with. It is the only user of gopacket in the program.
package craft

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// Trouble is why a packet cannot go on.
type Trouble uint8

// What the sender of a packet is told by an ICMP error.
const (
	NoRoute    Trouble = iota // RFC 1812 §5.2.7.1 code 0, RFC 4443 §3.1 code 0
	Prohibited                // RFC 1812 §5.2.7.1 code 13, RFC 4443 §3.1 code 1
	TooBig                    // RFC 1191 §4, RFC 4443 §3.2
	BadSource                 // RFC 4443 §3.4 about the source address; of IPv6 alone
	BadPort                   // RFC 1122 §3.2.2.1 code 3, RFC 4443 §3.1 code 4
)

// How much of the refused packet an ICMP error carries: RFC 1812 §4.3.2.3 asks for as much as fits in 576 bytes, RFC 4443
// §2.4(c) for as much as fits in the least MTU of IPv6.
const (
	quoteLen   = 576 - 20 - 8
	quoteLenV6 = 1280 - 40 - 8
)

// Link is the Ethernet addressing of a crafted frame.
type Link struct{ Source, Destination [6]byte }

// Error returns a buffer (virtio header and frame) with the ICMP error from router to the sender of the IP packet quoted,
// in the family of both addresses; mtu is used with TooBig alone.
func Error(l Link, router, to netip.Addr, quoted []byte, why Trouble, mtu int) []byte {
	if to.Is4() {
		quoted = quoted[:min(len(quoted), quoteLen)]
		return serialise(l, ipv4(router, to, layers.IPProtocolICMPv4), errorV4(why, mtu), gopacket.Payload(quoted))
	}
	quoted = quoted[:min(len(quoted), quoteLenV6)]
	ip := ipv6(router, to, layers.IPProtocolICMPv6)
	return serialise(l, ip, errorV6(ip, why), number(why, mtu), gopacket.Payload(quoted))
}

func errorV4(why Trouble, mtu int) *layers.ICMPv4 {
	code := [...]uint8{
		NoRoute: layers.ICMPv4CodeNet, Prohibited: layers.ICMPv4CodeCommAdminProhibited, TooBig: layers.ICMPv4CodeFragmentationNeeded,
		BadPort: layers.ICMPv4CodePort,
	}[why]
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code)}
	if why == TooBig {
		icmp.Seq = uint16(min(mtu, 0xffff))
	}
	return icmp
}

func errorV6(ip *layers.IPv6, why Trouble) *layers.ICMPv6 {
	code := [...]layers.ICMPv6TypeCode{
		NoRoute:    layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodeNoRouteToDst),
		Prohibited: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodeAdminProhibited),
		TooBig:     layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0),
		BadSource:  layers.CreateICMPv6TypeCode(layers.ICMPv6TypeParameterProblem, layers.ICMPv6CodeErroneousHeaderField),
		BadPort:    layers.CreateICMPv6TypeCode(layers.ICMPv6TypeDestinationUnreachable, layers.ICMPv6CodePortUnreachable),
	}[why]
	return icmpv6(ip, code)
}

// sourceAt is where the source address lies in the header of IPv6.
const sourceAt = 8

// number is what stands before the quote in an error of ICMPv6: the MTU, the place of what is wrong, or nothing.
func number(why Trouble, mtu int) gopacket.Payload {
	var b [4]byte
	switch why {
	case TooBig:
		binary.BigEndian.PutUint32(b[:], uint32(mtu))
	case BadSource:
		binary.BigEndian.PutUint32(b[:], sourceAt)
	}
	return b[:]
}

// Reset returns a buffer with the TCP reset that the peer's stack would answer to segment (RFC 9293 §3.5.2), or nil for a
// segment that is itself a reset or cannot be read.
func Reset(l Link, segment []byte, from, to netip.Addr) []byte {
	var in layers.TCP
	if in.DecodeFromBytes(segment, gopacket.NilDecodeFeedback) != nil || in.RST {
		return nil
	}
	out := &layers.TCP{SrcPort: in.DstPort, DstPort: in.SrcPort, RST: true}
	if in.ACK {
		out.Seq = in.Ack
	} else {
		out.ACK, out.Ack = true, in.Seq+length(&in)
	}
	return reset(l, out, from, to)
}

// ResetAt returns a buffer with the TCP reset of one end at a sequence number, as it belongs to a connection that both know.
func ResetAt(l Link, from, to netip.AddrPort, seq uint32) []byte {
	out := &layers.TCP{SrcPort: layers.TCPPort(from.Port()), DstPort: layers.TCPPort(to.Port()), RST: true, Seq: seq}
	return reset(l, out, from.Addr(), to.Addr())
}

func reset(l Link, out *layers.TCP, from, to netip.Addr) []byte {
	var ip header = ipv4(from, to, layers.IPProtocolTCP)
	if !from.Is4() {
		ip = ipv6(from, to, layers.IPProtocolTCP)
	}
	if out.SetNetworkLayerForChecksum(ip) != nil {
		return nil
	}
	return serialise(l, ip, out)
}

// length is how many sequence numbers a segment takes.
func length(t *layers.TCP) uint32 {
	n := uint32(len(t.Payload))
	if t.SYN {
		n++
	}
	if t.FIN {
		n++
	}
	return n
}

// header is that of IP, of either family.
type header interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
}

const hopLimit = 64

func ipv4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: hopLimit, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func ipv6(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: hopLimit, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// icmpv6 is the beginning of a message, whose checksum covers addresses (RFC 4443 §2.3).
func icmpv6(ip *layers.IPv6, code layers.ICMPv6TypeCode) *layers.ICMPv6 {
	icmp := &layers.ICMPv6{TypeCode: code}
	_ = icmp.SetNetworkLayerForChecksum(ip) // takes any header of IP
	return icmp
}

// serialise puts an empty virtio header and an Ethernet header before IP and what it carries; nil when they do not fit together.
func serialise(l Link, ip header, body ...gopacket.SerializableLayer) []byte {
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr(l.Source[:]), DstMAC: net.HardwareAddr(l.Destination[:]), EthernetType: layers.EthernetTypeIPv4,
	}
	if ip.LayerType() == layers.LayerTypeIPv6 {
		eth.EthernetType = layers.EthernetTypeIPv6
	}
	all := append([]gopacket.SerializableLayer{gopacket.Payload(make([]byte, packet.VnetLen)), eth, ip}, body...)
	buf := gopacket.NewSerializeBuffer()
	if gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...) != nil {
		return nil
	}
	return buf.Bytes()
}
