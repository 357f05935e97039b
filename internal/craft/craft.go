// Package craft builds whole packets off the hot path: ICMP errors and TCP resets that the gateway answers with. It is the
// only user of gopacket in the program.
package craft

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// Codes of ICMP destination-unreachable (RFC 792, RFC 1812 §5.2.7.1).
const (
	CodeNet             = layers.ICMPv4CodeNet
	CodeFragNeeded      = layers.ICMPv4CodeFragmentationNeeded
	CodeAdminProhibited = layers.ICMPv4CodeCommAdminProhibited
)

// quoteLen is how much of the refused packet an ICMP error carries: RFC 1812 §4.3.2.3 asks for as much as fits in 576 bytes.
const quoteLen = 576 - 20 - 8

// Link is the Ethernet addressing of a crafted frame.
type Link struct{ Source, Destination [6]byte }

// Unreachable returns a buffer (virtio header and frame) with an ICMP destination-unreachable from router to the sender
// of the IPv4 packet quoted; mtu is used with CodeFragNeeded alone (RFC 1191 §4).
func Unreachable(l Link, router netip.Addr, quoted []byte, to netip.Addr, code uint8, mtu int) []byte {
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code)}
	if code == CodeFragNeeded {
		icmp.Seq = uint16(min(mtu, 0xffff))
	}
	quoted = quoted[:min(len(quoted), quoteLen)]
	return serialise(l, ipv4(router, to, layers.IPProtocolICMPv4), icmp, gopacket.Payload(quoted))
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
	ip := ipv4(from, to, layers.IPProtocolTCP)
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

func ipv4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// serialise puts an empty virtio header and an Ethernet header before the layers; nil when they do not fit together.
func serialise(l Link, body ...gopacket.SerializableLayer) []byte {
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr(l.Source[:]), DstMAC: net.HardwareAddr(l.Destination[:]), EthernetType: layers.EthernetTypeIPv4,
	}
	all := append([]gopacket.SerializableLayer{gopacket.Payload(make([]byte, packet.VnetLen)), eth}, body...)
	buf := gopacket.NewSerializeBuffer()
	if gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...) != nil {
		return nil
	}
	return buf.Bytes()
}
