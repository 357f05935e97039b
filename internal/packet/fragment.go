package packet

import "encoding/binary"

// maxDatagram is the largest IPv4 datagram, and the largest payload of an IPv6 packet, bytes.
const maxDatagram = 65535

// Place is where a fragment belongs (RFC 791 §3.1).
type Place struct {
	ID     uint32 // of IPv4 16 bits of it
	Offset int    // of its payload in that of the datagram, bytes
	Len    int    // of its payload, bytes
	More   bool   // others follow
}

// Place reads it from the frame that p was decoded from.
func (p *Packet) Place(frame []byte) Place {
	if p.IPv6 {
		return p.placeV6(frame)
	}
	ip := frame[p.L3:]
	field := binary.BigEndian.Uint16(ip[6:])
	return Place{
		ID: uint32(binary.BigEndian.Uint16(ip[4:])), Offset: int(field&0x1fff) * 8, More: field&0x2000 != 0,
		Len: int(p.Len) - int(p.L4-p.L3),
	}
}

// placeV6 is Place for IPv6 (RFC 8200 §4.5), the whole for what has no Fragment header.
func (p *Packet) placeV6(frame []byte) Place {
	if p.Frag == 0 {
		return Place{Len: int(p.Len) - int(p.L4-p.L3)}
	}
	h := frame[p.Frag:]
	field := binary.BigEndian.Uint16(h[2:])
	return Place{
		ID: binary.BigEndian.Uint32(h[4:]), Offset: int(field &^ 7), More: field&1 != 0,
		Len: int(p.Len) - int(p.Frag-p.L3) - fragmentHeader,
	}
}

// Sound reports whether a fragment at this place can be part of a datagram of a protocol: it is not empty, ends at a multiple of
// eight unless it is the last, does not reach beyond the largest datagram, and does not overwrite the transport header
// that the first fragment was judged by (RFC 1858 §4.2).
func (l Place) Sound(proto uint8) bool {
	header := 8
	if proto == ProtoTCP {
		header = 20
	}
	return l.Len > 0 && (!l.More || l.Len%8 == 0) && l.Offset+l.Len <= maxDatagram-minIPv4 && (l.Offset == 0 || l.Offset >= header)
}

// DecodeFirst turns p, decoded from a first fragment, into what a whole packet with this header is: kind, ports, flags. The
// kind is Malformed when the fragment does not hold its whole transport header (RFC 1858 §4.1).
func (p *Packet) DecodeFirst(frame []byte) {
	room := maxDatagram - minIPv4
	if p.IPv6 {
		room = maxDatagram
	}
	p.decodeL4(frame[p.L4:int(p.L3)+int(p.Len)], room)
}
