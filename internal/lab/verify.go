package lab

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
)

// verify recomputes every checksum in full and returns what is wrong, or "".
func (p *Packet) verify() string {
	if p.IP.Version != 4 || len(p.IP.Contents) != int(p.IP.IHL)*4 {
		return "malformed IPv4 header"
	}
	if onesSum(p.IP.Contents, 0) != 0xffff {
		return "wrong IPv4 header checksum"
	}
	if int(p.IP.Length) != len(p.IP.Contents)+len(p.IP.Payload) {
		return "shorter than its IPv4 length"
	}
	if p.Fragment {
		return ""
	}
	switch p.IP.Protocol {
	case layers.IPProtocolTCP:
		return p.verifyTCP()
	case layers.IPProtocolUDP:
		if p.UDP != nil && p.UDP.Checksum == 0 && !p.Partial {
			return "" // RFC 768: none was computed
		}
		return p.verifyUDP()
	case layers.IPProtocolICMPv4:
		return p.verifyICMP()
	}
	return ""
}

func (p *Packet) verifyTCP() string {
	return p.verifyTransport(p.TCP != nil && len(p.TCP.Contents) == int(p.TCP.DataOffset)*4, 16)
}

func (p *Packet) verifyUDP() string {
	if p.UDP != nil && int(p.UDP.Length) != len(p.Segment) {
		return "UDP length differs from the IP length"
	}
	return p.verifyTransport(p.UDP != nil, 6)
}

// verifyTransport checks a checksum with pseudo header, whose field is at an offset of the segment. One left to the device
// must be the sum of the pseudo header, not inverted (what Linux calls CHECKSUM_PARTIAL).
func (p *Packet) verifyTransport(decoded bool, field int) string {
	if !decoded {
		return "malformed transport header"
	}
	segment := p.Segment
	pseudo := p.pseudoSum()
	switch {
	case p.Partial && binary.BigEndian.Uint16(segment[field:]) != fold(pseudo):
		return "partial transport checksum is not the pseudo header's sum"
	case !p.Partial && onesSum(segment, pseudo) != 0xffff:
		return "wrong transport checksum"
	}
	return ""
}

// verifyICMP checks the message and, in an error, the header of the quoted packet (RFC 792), which a NAT rewrites too.
func (p *Packet) verifyICMP() string {
	if p.ICMP == nil {
		return "malformed ICMP header"
	}
	if onesSum(p.Segment, 0) != 0xffff {
		return "wrong ICMP checksum"
	}
	switch p.ICMP.TypeCode.Type() {
	case layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem:
		quoted := p.ICMP.Payload
		if len(quoted) < 20 || len(quoted) < int(quoted[0]&15)*4 {
			return "ICMP error quotes no whole IPv4 header"
		}
		if onesSum(quoted[:int(quoted[0]&15)*4], 0) != 0xffff {
			return "wrong IPv4 header checksum in the quoted packet"
		}
	}
	return ""
}

// pseudoSum adds up the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1).
func (p *Packet) pseudoSum() uint32 {
	return wordSum(p.Src.Addr().AsSlice(), 0) + wordSum(p.Dst.Addr().AsSlice(), 0) + uint32(p.Proto) + uint32(len(p.Segment))
}

// onesSum is the one's complement sum of b and start; 0xffff if b holds its own right checksum (RFC 1071).
func onesSum(b []byte, start uint32) uint16 { return fold(wordSum(b, start)) }

// wordSum cannot overflow: a packet has at most 32,768 words of at most 65,535.
func wordSum(b []byte, sum uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
