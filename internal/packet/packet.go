// Package packet reads and edits Ethernet frames in place: header decoding without allocation or error, the virtio
// header that TAP devices and packet sockets carry, and incremental checksums (RFC 1624). It is pure.
package packet

import "encoding/binary"

// Kind says what a frame is to a translator. Anything that cannot be handled is a value, never an error.
type Kind uint8

// The kinds of frames.
const (
	Malformed  Kind = iota // truncated or contradictory headers
	NotIP                  // another ethertype (VLAN tags, LLDP, ...)
	ARP                    // Ethernet ARP
	TCP                    // a whole TCP segment, or a super-segment
	UDP                    // a whole UDP datagram
	ICMPQuery              // ICMP or ICMPv6 echo, or ICMP timestamp, request or reply: both ports are the identifier
	ICMPError              // ICMP or ICMPv6 error quoting another packet (RFC 792, RFC 4443)
	Fragment               // any fragment of a datagram, also the first
	Discovery              // ICMPv6 that never leaves its link: neighbour and multicast listener discovery
	Call                   // GRE of a PPTP call (RFC 2637 §4.1): DstPort is the receiver's identifier, and SrcPort 0
	Portless               // a whole datagram of a protocol of which only the addresses are translated
	OtherProto             // IGMP, ICMP of another type, or of the other family
)

// Lengths and protocol numbers of headers.
const (
	EthernetLen = 14 // Ethernet header, bytes
	minIPv4     = 20

	ProtoICMP    = 1
	ProtoIGMP    = 2
	ProtoTCP     = 6
	ProtoUDP     = 17
	ProtoDCCP    = 33  // RFC 4340
	ProtoGRE     = 47  // RFC 2784
	ProtoUDPLite = 136 // RFC 3828

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherARP  = 0x0806
)

// TCP flag bits of Packet.TCPFlags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// ICMP types used by the translator (RFC 792).
const (
	ICMPEchoReply      = 0
	ICMPUnreachable    = 3
	ICMPEcho           = 8
	ICMPTimeExceeded   = 11
	ICMPParameter      = 12
	ICMPTimestamp      = 13
	ICMPTimestampReply = 14
)

// Packet locates the headers of one IP packet. Offsets count from the start of the byte slice given to Decode.
type Packet struct {
	Src, Dst         Addr   // valid for every IP kind
	SrcPort, DstPort uint16 // valid for TCP, UDP; ICMPQuery: the identifier in both
	Seq, SeqEnd, Ack uint32 // valid for TCP; SeqEnd is Seq plus payload, SYN and FIN
	L3, L4           uint16 // offsets; L4 is valid for every IP kind but later fragments carry no header there
	Frag             uint16 // offset of the Fragment header of IPv6, 0 for none
	Len              uint32 // of the IP packet, bytes
	Kind             Kind
	Proto            uint8 // protocol number; of IPv6 that behind the extension headers
	TCPFlags         uint8 // valid for TCP
	ICMPType         uint8 // valid for ICMPQuery, ICMPError
	TTL              uint8 // of IPv6 the hop limit
	IPv6             bool
	DontFragment     bool
	Options          bool // there are options or extension headers
}

// IsIPv6 reports whether an Ethernet frame says that it carries IPv6.
func IsIPv6(frame []byte) bool {
	return len(frame) >= EthernetLen && binary.BigEndian.Uint16(frame[12:]) == etherIPv6
}

// Decode fills p from an Ethernet frame. It never allocates and reads only inside frame.
func (p *Packet) Decode(frame []byte) {
	*p = Packet{}
	if len(frame) < EthernetLen {
		return
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		p.DecodeIPv4(frame, EthernetLen)
	case etherIPv6:
		p.DecodeIPv6(frame, EthernetLen)
	case etherARP:
		p.Kind = ARP
	default:
		p.Kind = NotIP
	}
}

// DecodeIPv4 fills p from an IPv4 packet that starts at offset l3 of b.
func (p *Packet) DecodeIPv4(b []byte, l3 int) {
	*p = Packet{}
	if len(b) < l3+minIPv4 || b[l3]>>4 != 4 {
		return
	}
	ip := b[l3:]
	ihl, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ihl < minIPv4 || total < ihl || total > len(ip) {
		return
	}
	p.L3, p.L4, p.Len = uint16(l3), uint16(l3+ihl), uint32(total)
	p.Proto, p.TTL, p.Options = ip[9], ip[8], ihl > minIPv4
	p.Src, p.Dst = IPv4(binary.BigEndian.Uint32(ip[12:])), IPv4(binary.BigEndian.Uint32(ip[16:]))
	frag := binary.BigEndian.Uint16(ip[6:])
	p.DontFragment = frag&0x4000 != 0
	if frag&0x3fff != 0 {
		p.Kind = Fragment
		return
	}
	p.decodeL4(ip[ihl:total], total-ihl)
}

// decodeL4 reads ports, flags and ICMP type from the payload of a datagram, or its first part; room bounds what the whole
// payload can be.
func (p *Packet) decodeL4(l4 []byte, room int) {
	switch {
	case p.Proto == ProtoTCP && len(l4) >= 20:
		p.decodeTCP(l4)
	case p.Proto == ProtoUDP && len(l4) >= 8:
		p.Kind = UDP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		if n := int(binary.BigEndian.Uint16(l4[4:])); n < 8 || n > room {
			p.Kind = Malformed
		}
	case p.Proto == ProtoICMP && !p.IPv6 && len(l4) >= 8:
		p.decodeICMP(l4)
	case p.Proto == ProtoICMPv6 && p.IPv6 && len(l4) >= 8:
		p.decodeICMPv6(l4)
	case p.Proto == ProtoTCP || p.Proto == ProtoUDP || p.Proto == p.icmp(), len(l4) < p.summed():
		p.Kind = Malformed
	case p.Proto == ProtoIGMP, p.Proto == ProtoICMP, p.Proto == ProtoICMPv6: // the latter two of the other family
		p.Kind = OtherProto
	case p.Proto == ProtoGRE && isCall(l4):
		p.Kind, p.DstPort = Call, binary.BigEndian.Uint16(l4[CallAt:])
	default:
		p.Kind = Portless
	}
}

// CallAt is where the call identifier lies in an enhanced GRE header.
const CallAt = 6

// isCall reports whether a GRE packet has the enhanced header, with an identifier that is none of 0.
func isCall(l4 []byte) bool {
	const (
		checksum, routing, key = 0x80, 0x40, 0x20
		versionMask, enhanced  = 7, 1
		ppp                    = 0x880b
	)
	return len(l4) >= CallAt+2 && l4[0]&(checksum|routing|key) == key && l4[1]&versionMask == enhanced &&
		binary.BigEndian.Uint16(l4[2:]) == ppp && binary.BigEndian.Uint16(l4[CallAt:]) != 0
}

// summed is how much of its payload a Portless packet must have for its checksum over the addresses to be there; zero when it
// has none.
func (p *Packet) summed() int {
	if p.Proto == ProtoUDPLite || p.Proto == ProtoDCCP {
		return 8
	}
	return 0
}

// decodeTCP reads a segment of at least 20 bytes.
func (p *Packet) decodeTCP(l4 []byte) {
	p.Kind, p.TCPFlags = TCP, l4[13]
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	off := int(l4[12]>>4) * 4
	if off < 20 || off > len(l4) {
		p.Kind = Malformed
		return
	}
	p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
	p.SeqEnd = p.Seq + uint32(len(l4)-off) + uint32(p.TCPFlags&FIN) + uint32(p.TCPFlags&SYN)>>1
}

func (p *Packet) decodeICMP(l4 []byte) {
	p.ICMPType = l4[0]
	switch l4[0] {
	case ICMPEcho, ICMPEchoReply, ICMPTimestamp, ICMPTimestampReply:
		p.Kind = ICMPQuery
		p.SrcPort = binary.BigEndian.Uint16(l4[4:])
		p.DstPort = p.SrcPort
	case ICMPUnreachable, ICMPTimeExceeded, ICMPParameter:
		p.Kind = ICMPError
	default:
		p.Kind = OtherProto
	}
}

// icmp is the number of ICMP's protocol for p's family.
func (p *Packet) icmp() uint8 {
	if p.IPv6 {
		return ProtoICMPv6
	}
	return ProtoICMP
}

// IsReply reports whether an ICMPQuery packet is the answer of a query.
func (p *Packet) IsReply() bool {
	if p.IPv6 {
		return p.ICMPType == ICMPv6EchoReply
	}
	return p.ICMPType == ICMPEchoReply || p.ICMPType == ICMPTimestampReply
}

// IsUnreachable reports whether an ICMPError packet says that a destination cannot be reached.
func (p *Packet) IsUnreachable() bool {
	if p.IPv6 {
		return p.ICMPType == ICMPv6Unreachable
	}
	return p.ICMPType == ICMPUnreachable
}

// ChecksumOffset is where the transport checksum of p lies in the frame; zero when the protocol has none we know.
func (p *Packet) ChecksumOffset() int {
	switch p.Proto {
	case ProtoTCP:
		return int(p.L4) + 16
	case ProtoUDP, ProtoUDPLite, ProtoDCCP:
		return int(p.L4) + 6
	case ProtoICMP, ProtoICMPv6:
		return int(p.L4) + 2
	}
	return 0
}
