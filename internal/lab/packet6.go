package lab

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// transports are the protocols behind IPv6 that are decoded.
var transports = map[layers.IPProtocol]gopacket.LayerType{
	layers.IPProtocolTCP: layers.LayerTypeTCP, layers.IPProtocolUDP: layers.LayerTypeUDP, layers.IPProtocolICMPv6: layers.LayerTypeICMPv6,
}

// decodeV6 reads what follows the fixed header by itself, as gopacket takes some extension headers for a part of that.
func (p *Packet) decodeV6(ip *layers.IPv6, b []byte) {
	p.V6 = ip
	p.Src, p.Dst = addrPort(ip.SrcIP), addrPort(ip.DstIP)
	b = b[len(ip.Contents):]
	if int(ip.Length) > len(b) {
		p.Problem = "shorter than its IPv6 length"
		return
	}
	if !p.passExtensions(b[:ip.Length]) {
		p.Problem = "malformed extension headers"
		return
	}
	if first, ok := transports[p.Proto]; ok && !p.Fragment {
		p.decodeTransport(gopacket.NewPacket(p.Segment, first, lazily))
	}
	p.Problem = p.verifyV6()
}

// passExtensions finds what is behind the extension headers (RFC 8200 §4); false when they end too early.
func (p *Packet) passExtensions(rest []byte) bool {
	for next := p.V6.NextHeader; ; {
		length := 8
		switch next {
		case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Destination:
			if len(rest) > 1 {
				length += 8 * int(rest[1])
			}
		case layers.IPProtocolIPv6Fragment:
			if len(rest) >= length {
				p.Fragment = p.Fragment || binary.BigEndian.Uint16(rest[2:])&^6 != 0 // else it is alone (RFC 6946)
			}
		default:
			p.Proto, p.Segment = next, rest
			return true
		}
		if len(rest) < length {
			return false
		}
		next, rest = layers.IPProtocol(rest[0]), rest[length:]
		if p.Fragment { // what it holds may begin anywhere
			p.Proto, p.Segment = next, rest
			return true
		}
	}
}

// verifyV6 is verify for IPv6.
func (p *Packet) verifyV6() string {
	if p.V6.Version != 6 {
		return "malformed IPv6 header"
	}
	if p.Fragment {
		return ""
	}
	switch p.Proto {
	case layers.IPProtocolTCP:
		return p.verifyTCP()
	case layers.IPProtocolUDP:
		if p.UDP != nil && p.UDP.Checksum == 0 && !p.Partial {
			return "UDP without a checksum over IPv6"
		}
		return p.verifyUDP()
	case layers.IPProtocolICMPv6:
		return p.verifyICMPv6()
	}
	return ""
}

// verifyICMPv6 checks the message and, in an error, that it quotes an IPv6 header (RFC 4443 §3).
func (p *Packet) verifyICMPv6() string {
	if problem := p.verifyTransport(p.ICMPv6 != nil, 2); problem != "" {
		return problem
	}
	const firstInformational = 128
	if p.ICMPv6.TypeCode.Type() < firstInformational && (len(p.Payload) < 40 || p.Payload[0]>>4 != 6) {
		return "ICMPv6 error quotes no whole IPv6 header"
	}
	return ""
}
