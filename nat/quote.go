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
	ipv6             bool
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
	if !ok || p.Dst != q.src || isICMP(q.proto) && q.reply {
		return InKey{}, false
	}
	k := InKey{
		Outside: q.src, Remote: q.dst, OutsidePort: q.srcPort, RemotePort: q.dstPort, Proto: q.proto, Uplink: uplink,
	}
	if isICMP(k.Proto) {
		k.RemotePort = 0
	}
	return k, true
}

// QuotedKeyOut is the session that an ICMP error from inside speaks of: the quoted packet is one the inside received.
func QuotedKeyOut(frame []byte, p *packet.Packet) (Key, bool) {
	q, ok := parseQuote(frame, p)
	if !ok || p.Dst != q.src || isICMP(q.proto) && !q.reply {
		return Key{}, false
	}
	k := Key{Inside: q.dst, Remote: q.src, InsidePort: q.dstPort, RemotePort: q.srcPort, Proto: q.proto}
	if isICMP(k.Proto) {
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
	p.Dst = tr.Inside
	rewriteOuter(frame, p, inbound, tr.Inside)
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
	p.Src = tr.Outside
	rewriteOuter(frame, p, outbound, tr.Outside)
	return true
}

// rewriteOuter changes an address of the error's own header, as p has it already, and sums the changed message anew.
func rewriteOuter(frame []byte, p *packet.Packet, d direction, addr packet.Addr) {
	rewrite(frame, p, edit{addrAt: addressOf(p, d), addr: addr}, false)
	sum := frame[p.ChecksumOffset():]
	binary.BigEndian.PutUint16(sum, 0)
	binary.BigEndian.PutUint16(sum, ^messageSum(frame, p))
}

// message is the ICMP message of p.
func message(frame []byte, p *packet.Packet) []byte { return frame[p.L4 : int(p.L3)+int(p.Len)] }

// messageSum is the sum over an ICMP message, which of ICMPv6 has a pseudo header.
func messageSum(frame []byte, p *packet.Packet) uint16 {
	m, pseudo := message(frame, p), uint64(0)
	if p.IPv6 {
		pseudo = packet.PseudoHeader(p.Src, p.Dst, protoICMPv6, len(m))
	}
	return packet.Fold(packet.Sum(pseudo, m))
}

// quoteEnd is where the quote of an error ends: before extensions that a length of at least 128 bytes announces; less is
// what older senders left there (RFC 4884 §5). Errors of ICMPv6 that carry something else in its place have none.
func quoteEnd(frame []byte, p *packet.Packet) int {
	end, announced := int(p.L3)+int(p.Len), int(frame[p.L4+5])*4
	if p.IPv6 {
		announced = int(frame[p.L4+4]) * 8
		if p.ICMPType != packet.ICMPv6Unreachable && p.ICMPType != packet.ICMPv6TimeExceeded {
			announced = 0
		}
	}
	if announced >= 128 {
		end = min(end, int(p.L4)+icmpHeader+announced)
	}
	return end
}

// parseQuote reads the quote of an error whose own checksum and quoted header checksum are right (RFC 5508 REQ-3). The
// quoted transport checksum is not looked at.
func parseQuote(frame []byte, p *packet.Packet) (quote, bool) {
	if p.Kind != packet.ICMPError || messageSum(frame, p) != 0xffff {
		return quote{}, false
	}
	l3, end := int(p.L4)+icmpHeader, quoteEnd(frame, p)
	if p.IPv6 {
		return parseQuoteV6(frame, l3, end)
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

// parseQuoteV6 is parseQuote for IPv6.
func parseQuoteV6(frame []byte, l3, end int) (quote, bool) {
	inner, ok := packet.QuotedIPv6(frame[:end], l3)
	if !ok {
		return quote{}, false
	}
	l4 := int(inner.L4)
	end = min(end, l3+int(inner.Len))
	if l4 > end || HasPorts(inner.Proto) && l4+quotedHeader > end {
		return quote{}, false
	}
	q := quote{l3: l3, l4: l4, end: end, proto: inner.Proto, src: inner.Src, dst: inner.Dst, ipv6: true}
	return q, q.parseTransport(frame[l4:end])
}

// parseTransport reads the ports, or the identifier of an ICMP query. False for what is never translated.
func (q *quote) parseTransport(l4 []byte) bool {
	switch q.proto {
	case protoTCP, protoUDP:
		q.srcPort, q.dstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		return true
	case protoICMP, protoICMPv6:
		q.srcPort = binary.BigEndian.Uint16(l4[4:])
		q.dstPort = q.srcPort
		q.reply = (&packet.Packet{IPv6: q.ipv6, ICMPType: l4[0]}).IsReply()
		return isQuery(q.proto, l4[0]) && (q.proto == protoICMPv6) == q.ipv6
	}
	return q.proto != packet.ProtoIGMP
}

// rewrite changes the side of the quoted packet that d translates, and the quoted checksums that are there.
func (q *quote) rewrite(frame []byte, d direction, addr packet.Addr, port uint16) {
	inner := packet.Packet{L3: uint16(q.l3), L4: uint16(q.l4), Len: uint32(q.end - q.l3), Proto: q.proto, IPv6: q.ipv6}
	e := edit{addrAt: addressOf(&inner, d), addr: addr, portAt: q.l4 + 2*int(d), port: port}
	if isICMP(q.proto) {
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
