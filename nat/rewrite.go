package nat

import (
	"encoding/binary"

	"tapgw/internal/packet"
)

// RewriteOut makes a packet of the inside one of the outside: source address and port (or ICMP identifier), and all
// checksums, in place; of protocols without ports the address alone. p is what frame was decoded to and is kept up to date.
// partial says that the transport checksum is only the pseudo header's sum, to be completed by the device
// (packet.VnetNeedsCsum). Fragments are rewritten as far as they have headers; false when a first fragment is too short for
// that, and the frame is unchanged then.
func RewriteOut(frame []byte, p *packet.Packet, tr *Translation, partial bool) bool {
	port, ok := portOffset(frame, p, outbound)
	if !ok {
		return false
	}
	rewrite(frame, p, edit{addrAt: addressOf(p, outbound), addr: tr.Outside, portAt: port, port: tr.OutsidePort}, partial)
	p.Src, p.SrcPort = tr.Outside, tr.OutsidePort
	if p.Kind == packet.ICMPQuery {
		p.DstPort = tr.OutsidePort
	}
	return true
}

// RewriteIn makes a packet of the outside one of the inside: destination address and port, otherwise as RewriteOut.
func RewriteIn(frame []byte, p *packet.Packet, tr *Translation, partial bool) bool {
	port, ok := portOffset(frame, p, inbound)
	if !ok {
		return false
	}
	rewrite(frame, p, edit{addrAt: addressOf(p, inbound), addr: tr.Inside, portAt: port, port: tr.InsidePort}, partial)
	p.Dst, p.DstPort = tr.Inside, tr.InsidePort
	if p.Kind == packet.ICMPQuery {
		p.SrcPort = tr.InsidePort
	}
	return true
}

// Offsets in the IPv4 header, and of the source in that of IPv6.
const (
	fragmentAt = 6
	ipSumAt    = 10
	srcAt      = 12
	dstAt      = 16
	srcAtV6    = 8
)

// addressOf is where the address lies that a direction translates: the source of what leaves, the destination of what comes.
func addressOf(p *packet.Packet, d direction) int {
	if p.IPv6 {
		return int(p.L3) + srcAtV6 + 16*int(d)
	}
	return int(p.L3) + srcAt + 4*int(d)
}

// edit is one address and one port to be written. A portAt of 0 means that the frame has no port to be translated.
type edit struct {
	addrAt, portAt int
	addr           packet.Addr
	port           uint16
}

// portOffset is where the port of the translated side lies, 0 when the packet has none.
func portOffset(frame []byte, p *packet.Packet, d direction) (at int, ok bool) {
	l4 := int(p.L4)
	switch p.Kind {
	case packet.TCP, packet.UDP:
		return l4 + 2*int(d), true
	case packet.ICMPQuery:
		return l4 + 4, true
	case packet.Call:
		return int(d) * (l4 + packet.CallAt), true // the identifier of the remote stays
	case packet.Portless, packet.OtherProto:
		return 0, true
	case packet.Fragment:
		return fragmentPort(frame[l4:int(p.L3)+int(p.Len)], p, d, isLater(frame, p))
	}
	return 0, false
}

// isLater reports whether a packet is a fragment other than the first, which has no transport header.
func isLater(frame []byte, p *packet.Packet) bool {
	if p.IPv6 {
		return p.Frag != 0 && p.Place(frame).Offset > 0
	}
	return binary.BigEndian.Uint16(frame[int(p.L3)+fragmentAt:])&0x1fff != 0
}

// fragmentPort is portOffset for a fragment with payload l4.
func fragmentPort(l4 []byte, p *packet.Packet, d direction, later bool) (at int, ok bool) {
	if later {
		return 0, true
	}
	switch p.Proto {
	case packet.ProtoTCP:
		return int(p.L4) + 2*int(d), len(l4) >= tcpSumEnd
	case packet.ProtoUDP:
		return int(p.L4) + 2*int(d), len(l4) >= 8
	case protoICMP, protoICMPv6:
		return int(p.L4) + 4, len(l4) >= 8 && isQuery(p.Proto, l4[0])
	}
	return 0, true
}

// isQuery reports whether a type of ICMP or ICMPv6 carries an identifier that we translate.
func isQuery(proto, icmpType uint8) bool {
	if proto == protoICMPv6 {
		return icmpType == packet.ICMPv6Echo || icmpType == packet.ICMPv6EchoReply
	}
	switch icmpType {
	case packet.ICMPEcho, packet.ICMPEchoReply, packet.ICMPTimestamp, packet.ICMPTimestampReply:
		return true
	}
	return false
}

func rewrite(frame []byte, p *packet.Packet, e edit, partial bool) {
	var both packet.Delta
	addr := replaceAddress(frame, p, e)
	if e.portAt == 0 {
		if isSummed(frame, p) {
			fixTransport(frame, p, addr, addr, partial)
		}
		return
	}
	if p.Proto != protoICMP { // which has no pseudo header
		both = addr
	}
	both.Replace16(binary.BigEndian.Uint16(frame[e.portAt:]), e.port)
	binary.BigEndian.PutUint16(frame[e.portAt:], e.port)
	if p.ChecksumOffset() != 0 {
		fixTransport(frame, p, addr, both, partial)
	}
}

// replaceAddress writes an address, with the checksum of IPv4's header, and returns what that adds to other sums.
func replaceAddress(frame []byte, p *packet.Packet, e edit) (d packet.Delta) {
	if !p.IPv6 {
		d.Replace32(binary.BigEndian.Uint32(frame[e.addrAt:]), e.addr.V4())
		binary.BigEndian.PutUint32(frame[e.addrAt:], e.addr.V4())
		fix(frame, int(p.L3)+ipSumAt, d)
		return d
	}
	field := frame[e.addrAt : e.addrAt+16]
	var to [16]byte
	binary.BigEndian.PutUint64(to[:], e.addr.Hi)
	binary.BigEndian.PutUint64(to[8:], e.addr.Lo)
	for i := 0; i < len(to); i += 4 {
		d.Replace32(binary.BigEndian.Uint32(field[i:]), binary.BigEndian.Uint32(to[i:]))
	}
	copy(field, to[:])
	return d
}

// fixTransport brings the transport checksum up to date: with both deltas when it is complete, with that of the address
// alone when the device sums the rest.
func fixTransport(frame []byte, p *packet.Packet, addr, both packet.Delta, partial bool) {
	at := p.ChecksumOffset()
	switch {
	case partial && p.Proto == protoICMP: // no pseudo header: the device sums all
	case partial:
		field := frame[at : at+2]
		binary.BigEndian.PutUint16(field, addr.ApplySeed(binary.BigEndian.Uint16(field)))
	case p.Proto == packet.ProtoUDP, p.Proto == packet.ProtoUDPLite:
		fixUDP(frame, at, both)
	default:
		fix(frame, at, both)
	}
}

// fix applies a delta to the checksum field at an offset.
func fix(b []byte, at int, d packet.Delta) {
	binary.BigEndian.PutUint16(b[at:], d.Apply(binary.BigEndian.Uint16(b[at:])))
}

// fixUDP is fix for UDP and UDP-Lite, where 0 means no checksum (RFC 768), or a wrong one (RFC 3828 §3.1): it stays 0, and a
// result of 0 is written as 0xffff.
func fixUDP(b []byte, at int, d packet.Delta) {
	if binary.BigEndian.Uint16(b[at:]) == 0 {
		return
	}
	if fix(b, at, d); binary.BigEndian.Uint16(b[at:]) == 0 {
		binary.BigEndian.PutUint16(b[at:], 0xffff)
	}
}
