package nat

import (
	"encoding/binary"

	"tapgw/internal/packet"
)

// RewriteOut makes a packet of the inside one of the outside: source address and port (or ICMP identifier), and all
// checksums, in place; of protocols without ports the address alone. p is what frame was decoded to and is kept up to date. partial says that the transport checksum is
// only the pseudo header's sum, to be completed by the device (packet.VnetNeedsCsum). Fragments are rewritten as far as they
// have headers; false when a first fragment is too short for that, and the frame is unchanged then.
func RewriteOut(frame []byte, p *packet.Packet, tr *Translation, partial bool) bool {
	port, ok := portOffset(frame, p, outbound)
	if !ok {
		return false
	}
	rewrite(frame, p, edit{addrAt: int(p.L3) + srcAt, addr: tr.Outside, portAt: port, port: tr.OutsidePort}, partial)
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
	rewrite(frame, p, edit{addrAt: int(p.L3) + dstAt, addr: tr.Inside, portAt: port, port: tr.InsidePort}, partial)
	p.Dst, p.DstPort = tr.Inside, tr.InsidePort
	if p.Kind == packet.ICMPQuery {
		p.SrcPort = tr.InsidePort
	}
	return true
}

// Offsets in the IPv4 header.
const (
	fragmentAt = 6
	ipSumAt    = 10
	srcAt      = 12
	dstAt      = 16
)

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
	case packet.Portless, packet.OtherProto:
		return 0, true
	case packet.Fragment:
		return fragmentPort(frame[l4:int(p.L3)+int(p.Len)], p, d, isLater(frame, p))
	}
	return 0, false
}

// isLater reports whether a packet is a fragment other than the first, which has no transport header.
func isLater(frame []byte, p *packet.Packet) bool {
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
	case packet.ProtoICMP:
		return int(p.L4) + 4, len(l4) >= 8 && isQuery(l4[0])
	}
	return 0, true
}

// isQuery reports whether an ICMP type carries an identifier that we translate.
func isQuery(icmpType uint8) bool {
	switch icmpType {
	case packet.ICMPEcho, packet.ICMPEchoReply, packet.ICMPTimestamp, packet.ICMPTimestampReply:
		return true
	}
	return false
}

func rewrite(frame []byte, p *packet.Packet, e edit, partial bool) {
	var addr, both packet.Delta
	addr.Replace32(binary.BigEndian.Uint32(frame[e.addrAt:]), e.addr.V4())
	binary.BigEndian.PutUint32(frame[e.addrAt:], e.addr.V4())
	fix(frame, int(p.L3)+ipSumAt, addr)
	if e.portAt == 0 {
		if isSummed(frame, p) {
			fixTransport(frame, p, addr, addr, partial)
		}
		return
	}
	if p.Proto != packet.ProtoICMP {
		both = addr
	}
	both.Replace16(binary.BigEndian.Uint16(frame[e.portAt:]), e.port)
	binary.BigEndian.PutUint16(frame[e.portAt:], e.port)
	fixTransport(frame, p, addr, both, partial)
}

// fixTransport brings the transport checksum up to date: with both deltas when it is complete, with that of the address
// alone when the device sums the rest.
func fixTransport(frame []byte, p *packet.Packet, addr, both packet.Delta, partial bool) {
	at := p.ChecksumOffset()
	switch {
	case partial && p.Proto == packet.ProtoICMP: // no pseudo header: the device sums all
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
