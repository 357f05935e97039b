package nat

import (
	"encoding/binary"

	"tapgw/internal/packet"
)

// quote locates the packet quoted by an ICMP error. Only its first bytes need to be there; what follows the quoted
// datagram (RFC 4884 extensions, padding) is not part of it.
type quote struct {
	l3, l4, end      int // offsets in the frame
	src, dst         packet.Addr
	srcPort, dstPort uint16 // ICMP: the identifier in both; 0 for protocols without ports
	proto            uint8
	reply            bool // ICMP: the quoted packet is a reply
}

const (
	icmpHeader   = 8
	quotedHeader = 8 // what an error quotes at least of the transport header (RFC 792)
	tcpSumEnd    = 18
)

// QuotedKeyIn is the session that an ICMP error from outside speaks of: the quoted packet is one that left by the uplink.
// False when the error or the quote is damaged, quotes no header we translate, or was not sent to the quoted source.
func QuotedKeyIn(frame []byte, p *packet.Packet, uplink uint8) (InKey, bool) {
	q, ok := parseQuote(frame, p)
	if !ok || p.Dst != q.src || q.proto == protoICMP && q.reply {
		return InKey{}, false
	}
	k := InKey{
		Outside: q.src, Remote: q.dst, OutsidePort: q.srcPort, RemotePort: q.dstPort, Proto: q.proto, Uplink: uplink,
	}
	if k.Proto == protoICMP {
		k.RemotePort = 0
	}
	return k, true
}

// QuotedKeyOut is the session that an ICMP error from inside speaks of: the quoted packet is one the inside received.
func QuotedKeyOut(frame []byte, p *packet.Packet) (Key, bool) {
	q, ok := parseQuote(frame, p)
	if !ok || p.Dst != q.src || q.proto == protoICMP && !q.reply {
		return Key{}, false
	}
	k := Key{Inside: q.dst, Remote: q.src, InsidePort: q.dstPort, RemotePort: q.srcPort, Proto: q.proto}
	if k.Proto == protoICMP {
		k.RemotePort = 0
	}
	return k, true
}

// RewriteErrorIn translates an ICMP error from outside for the inside host (RFC 5508 REQ-4): the quoted source and the
// outer destination become the inside endpoint, and all checksums follow. The outer source, type and code stay. False when
// the frame is not an intact error about tr; it is unchanged then.
func RewriteErrorIn(frame []byte, p *packet.Packet, tr *Translation) bool {
	q, ok := parseQuote(frame, p)
	if !ok || p.Dst != q.src || q.src != tr.Outside || q.srcPort != tr.OutsidePort || q.proto != tr.Proto {
		return false
	}
	q.rewrite(frame, outbound, tr.Inside, tr.InsidePort)
	rewriteOuter(frame, p, dstAt, tr.Inside)
	p.Dst = tr.Inside
	return true
}

// RewriteErrorOut translates an ICMP error from inside for the remote (RFC 5508 REQ-5): the quoted destination becomes the
// outside endpoint and the outer source the outside address, whoever inside sent it.
func RewriteErrorOut(frame []byte, p *packet.Packet, tr *Translation) bool {
	q, ok := parseQuote(frame, p)
	if !ok || p.Dst != q.src || q.dst != tr.Inside || q.dstPort != tr.InsidePort || q.proto != tr.Proto {
		return false
	}
	q.rewrite(frame, inbound, tr.Outside, tr.OutsidePort)
	rewriteOuter(frame, p, srcAt, tr.Outside)
	p.Src = tr.Outside
	return true
}

// rewriteOuter changes an address of the error's own header and sums the changed message anew.
func rewriteOuter(frame []byte, p *packet.Packet, at int, addr packet.Addr) {
	rewrite(frame, p, edit{addrAt: int(p.L3) + at, addr: addr}, false)
	sum := frame[p.ChecksumOffset():]
	binary.BigEndian.PutUint16(sum, 0)
	binary.BigEndian.PutUint16(sum, ^packet.Fold(packet.Sum(0, message(frame, p))))
}

// message is the ICMP message of p.
func message(frame []byte, p *packet.Packet) []byte { return frame[p.L4 : int(p.L3)+int(p.Len)] }

// parseQuote reads the quote of an error whose own checksum and quoted header checksum are right (RFC 5508 REQ-3). The
// quoted transport checksum is not looked at.
func parseQuote(frame []byte, p *packet.Packet) (quote, bool) {
	if p.Kind != packet.ICMPError || packet.Fold(packet.Sum(0, message(frame, p))) != 0xffff {
		return quote{}, false
	}
	l3, end := int(p.L4)+icmpHeader, int(p.L3)+int(p.Len)
	// RFC 4884: a length of at least 128 bytes says that extensions follow; less is what older senders left there.
	if n := int(frame[p.L4+5]) * 4; n >= 128 {
		end = min(end, l3+n)
	}
	ip := frame[l3:end]
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return quote{}, false
	}
	ihl, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if end = min(end, l3+total); ihl < 20 || l3+ihl > end || HasPorts(ip[9]) && l3+ihl+quotedHeader > end {
		return quote{}, false
	}
	if packet.Fold(packet.Sum(0, ip[:ihl])) != 0xffff || binary.BigEndian.Uint16(ip[fragmentAt:])&0x1fff != 0 {
		return quote{}, false
	}
	q := quote{
		l3: l3, l4: l3 + ihl, end: end, proto: ip[9],
		src: packet.IPv4(binary.BigEndian.Uint32(ip[srcAt:])), dst: packet.IPv4(binary.BigEndian.Uint32(ip[dstAt:])),
	}
	return q, q.parseTransport(frame[q.l4:end])
}

// parseTransport reads the ports, or the identifier of an ICMP query. False for what is never translated.
func (q *quote) parseTransport(l4 []byte) bool {
	switch q.proto {
	case protoTCP, protoUDP:
		q.srcPort, q.dstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		return true
	case protoICMP:
		q.srcPort = binary.BigEndian.Uint16(l4[4:])
		q.dstPort = q.srcPort
		q.reply = l4[0] == packet.ICMPEchoReply || l4[0] == packet.ICMPTimestampReply
		return isQuery(l4[0])
	}
	return q.proto != packet.ProtoIGMP
}

// rewrite changes the side of the quoted packet that d translates, and the quoted checksums that are there.
func (q *quote) rewrite(frame []byte, d direction, addr packet.Addr, port uint16) {
	inner := packet.Packet{L3: uint16(q.l3), L4: uint16(q.l4), Len: uint32(q.end - q.l3), Proto: q.proto}
	e := edit{addrAt: q.l3 + srcAt + 4*int(d), addr: addr, portAt: q.l4 + 2*int(d), port: port}
	if q.proto == protoICMP {
		e.portAt = q.l4 + 4
	}
	if !HasPorts(q.proto) {
		e.portAt = 0
	}
	if q.proto == protoTCP && q.end < q.l4+tcpSumEnd {
		binary.BigEndian.PutUint16(frame[e.portAt:], port)
		e.portAt = 0 // no checksum to fix
	}
	rewrite(frame, &inner, e, false)
}
