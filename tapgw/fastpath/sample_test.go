package fastpath

import (
	"encoding/binary"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// addressOf makes a number an address of a family: of IPv6 one that differs from others in both halves.
func addressOf(f uplinks.Family, n uint32) packet.Addr {
	if f == uplinks.IPv4 {
		return packet.IPv4(n)
	}
	return packet.Addr{Hi: 0x20010db8<<32 | uint64(n), Lo: 0x9e3779b97f4a7c15 * uint64(n)}
}

// numberOf is the number of an address.
func numberOf(a packet.Addr) uint32 {
	if a.Is4() {
		return a.V4()
	}
	return uint32(a.Hi)
}

// sample describes a packet to be built.
type sample struct {
	family       uplinks.Family
	src, dst     uint32 // of addressOf
	sport, dport uint16
	proto, flags uint8
	seq, ack     uint32
	options      string // TCP, whole words
	payload      int
	noChecksum   bool // UDP
	trailer      int  // bytes after the IP packet
}

// l4 is where the transport header lies in the frame.
func (s sample) l4() int { return l4Of(s.family) }

func l4Of(f uplinks.Family) int {
	if f == uplinks.IPv6 {
		return ip + 40
	}
	return ip + 20
}

// headers are the bytes of those of IP and transport.
func (s sample) headers() int {
	if s.proto == packet.ProtoTCP {
		return s.l4() - ip + 20 + len(s.options)
	}
	return s.l4() - ip + 8
}

// build makes an Ethernet frame with right checksums; its destination is the loopback's address, so that it is for us.
func (s sample) build() []byte {
	f := make([]byte, packet.EthernetLen+s.headers()+s.payload+s.trailer)
	f[6] = 2
	length := s.headers() + s.payload - (s.l4() - ip)
	if s.family == uplinks.IPv6 {
		s.headerV6(f, length)
	} else {
		s.headerV4(f, length)
	}
	l4, header := f[s.l4():][:length], length-s.payload
	binary.BigEndian.PutUint16(l4, s.sport)
	binary.BigEndian.PutUint16(l4[2:], s.dport)
	for i := range l4[header:] {
		l4[header+i] = byte(i * int(s.seq|1))
	}
	sum := l4[6:8]
	if s.proto == packet.ProtoTCP {
		binary.BigEndian.PutUint32(l4[4:], s.seq)
		binary.BigEndian.PutUint32(l4[8:], s.ack)
		l4[12], l4[13], sum = byte(header/4)<<4, s.flags, l4[16:18]
		copy(l4[20:], s.options)
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	if !s.noChecksum {
		pseudo := packet.PseudoHeader(addressOf(s.family, s.src), addressOf(s.family, s.dst), s.proto, len(l4))
		check := ^packet.Fold(packet.Sum(pseudo, l4))
		if s.proto == packet.ProtoUDP && check == 0 {
			check = 0xffff
		}
		binary.BigEndian.PutUint16(sum, check)
	}
	return f
}

func (s sample) headerV4(f []byte, length int) {
	f[12] = 8
	h := f[ip:]
	h[0], h[8], h[9] = 0x45, 64, s.proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	binary.BigEndian.PutUint32(h[12:], s.src)
	binary.BigEndian.PutUint32(h[16:], s.dst)
	binary.BigEndian.PutUint16(h[10:], ^packet.Fold(packet.Sum(0, h[:20])))
}

func (s sample) headerV6(f []byte, length int) {
	f[12], f[13] = 0x86, 0xdd
	h := f[ip:]
	h[0], h[1], h[6], h[7] = 0x6b, 0xcd, s.proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(length))
	putAddr(h[8:], addressOf(s.family, s.src))
	putAddr(h[24:], addressOf(s.family, s.dst))
}

func putAddr(b []byte, a packet.Addr) {
	binary.BigEndian.PutUint64(b, a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
}

// reply is the sample in the other direction, to what the session is outside.
func (s sample) reply(tr *nat.Translation) sample {
	s.src, s.dst, s.sport, s.dport = numberOf(tr.Remote), numberOf(tr.Outside), tr.RemotePort, tr.OutsidePort
	s.seq, s.ack = s.ack, s.seq
	return s
}

func (s sample) key() nat.Key {
	return nat.Key{
		Inside: addressOf(s.family, s.src), Remote: addressOf(s.family, s.dst), InsidePort: s.sport, RemotePort: s.dport, Proto: s.proto,
	}
}

// ttlOf is the time to live of a frame.
func ttlOf(f []byte) *byte {
	if f[ip]>>4 == 6 {
		return &f[ip+7]
	}
	return &f[ip+8]
}

// lives sets the time to live.
func lives(f []byte, ttl byte) []byte {
	*ttlOf(f) = ttl
	return summed(f)
}
