package packet

import "encoding/binary"

// Numbers of IPv6 (RFC 8200 §4, RFC 4443).
const (
	IPv6Header     = 40
	fragmentHeader = 8
	maxExtensions  = 8    // headers before that of the transport, more than any sender needs
	maxChain       = 4096 // bytes of all of them

	ProtoICMPv6 = 58

	protoHopByHop    = 0
	protoRouting     = 43
	protoFragment    = 44
	protoDestination = 60

	ICMPv6Unreachable  = 1
	ICMPv6TooBig       = 2
	ICMPv6TimeExceeded = 3
	ICMPv6Parameter    = 4
	ICMPv6Echo         = 128
	ICMPv6EchoReply    = 129
	ICMPv6FirstLocal   = 130 // multicast listener and neighbour discovery, which never leave their link, …
	ICMPv6LastLocal    = 137
	ICMPv6Listener     = 143 // version 2 of multicast listener discovery
)

// DecodeIPv6 fills p from an IPv6 packet that starts at offset l3 of b. Extension headers are walked over as far as they
// change nothing for a translator; L4 is behind them.
func (p *Packet) DecodeIPv6(b []byte, l3 int) {
	ok := p.headerV6(b, l3)
	total := int(p.Len)
	if !ok || len(b) < l3+total {
		return
	}
	ip := b[l3 : l3+total]
	at, ok := p.walk(ip)
	if !ok {
		p.Kind = Malformed
		return
	}
	p.L4, p.Options = uint16(l3+at), at > IPv6Header
	if p.Kind != Fragment {
		p.decodeL4(ip[at:], total-at)
	}
}

// headerV6 reads the fixed header of an IPv6 packet, of which more need not be there. False when it is none.
func (p *Packet) headerV6(b []byte, l3 int) bool {
	*p = Packet{IPv6: true, DontFragment: true} // routers never fragment (RFC 8200 §5)
	if len(b) < l3+IPv6Header || b[l3]>>4 != 6 {
		return false
	}
	ip := b[l3:]
	p.L3, p.Len, p.TTL = uint16(l3), IPv6Header+uint32(binary.BigEndian.Uint16(ip[4:])), ip[7]
	p.Src, p.Dst = addrAt(ip[8:]), addrAt(ip[24:])
	return !p.Src.Is4() && !p.Dst.Is4() // a mapped address must not appear on the wire (RFC 4291 §2.5.5.2)
}

// QuotedIPv6 reads as much of an IPv6 packet as errors quote of it: addresses, and what is behind the extension headers. Len
// is that of the whole packet. False when it is none, is no first fragment, or its transport header is beyond the quote.
func QuotedIPv6(b []byte, l3 int) (p Packet, ok bool) {
	if !p.headerV6(b, l3) {
		return p, false
	}
	at, ok := p.walk(b[l3:])
	p.L4 = uint16(l3 + at)
	return p, ok && (p.Kind != Fragment || p.Place(b).Offset == 0)
}

func addrAt(b []byte) Addr { return Addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])} }

// walk passes the extension headers of an IPv6 packet, notes the protocol behind them, and returns where that begins. The
// kind is Fragment afterwards when the packet is one. False for headers that contradict each other, that would have the
// packet go elsewhere than its destination (RFC 5095), or whose end is not there (RFC 7112).
func (p *Packet) walk(ip []byte) (at int, ok bool) {
	next := ip[6]
	at = IPv6Header
	for n := range maxExtensions {
		if at > maxChain {
			return 0, false
		}
		switch next {
		case protoHopByHop, protoRouting, protoDestination:
			if next == protoHopByHop && n > 0 || len(ip) < at+8 {
				return 0, false
			}
			length := 8 + 8*int(ip[at+1])
			if len(ip) < at+length || next == protoRouting && ip[at+3] != 0 {
				return 0, false
			}
			next, at = ip[at], at+length
		case protoFragment:
			if p.Frag != 0 || len(ip) < at+fragmentHeader {
				return 0, false
			}
			p.Frag = p.L3 + uint16(at)
			field := binary.BigEndian.Uint16(ip[at+2:])
			next, at = ip[at], at+fragmentHeader
			if field&^6 != 0 { // else it is alone, and handled as a whole packet (RFC 6946)
				p.Kind = Fragment
			}
			if field&^7 != 0 { // a later one has no headers
				p.Proto = next
				return at, true
			}
		default:
			p.Proto = next
			return at, true
		}
	}
	return 0, false
}

// decodeICMPv6 reads type and identifier of a message of at least 8 bytes.
func (p *Packet) decodeICMPv6(l4 []byte) {
	p.ICMPType = l4[0]
	switch t := l4[0]; {
	case t == ICMPv6Echo || t == ICMPv6EchoReply:
		p.Kind = ICMPQuery
		p.SrcPort = binary.BigEndian.Uint16(l4[4:])
		p.DstPort = p.SrcPort
	case t >= ICMPv6Unreachable && t <= ICMPv6Parameter:
		p.Kind = ICMPError
	case t >= ICMPv6FirstLocal && t <= ICMPv6LastLocal || t == ICMPv6Listener:
		p.Kind = Discovery
	default:
		p.Kind = OtherProto
	}
}
