package tapgw

import (
	"encoding/binary"

	"tapgw/internal/packet"
)

const (
	tcpSumAt = 16 // offset of the checksum in a TCP header
	udpSumAt = 6
	sackKind = 5 // TCP option of selective acknowledgements (RFC 2018 §3)
)

// segment is a whole TCP or UDP packet in its buffer, whose payload and numbers may be changed.
type segment struct {
	b       []byte // virtio header and frame; grows within its capacity
	p       *packet.Packet
	header, // length of the transport header
	sumAt int // of the checksum in it
}

func segmentOf(b []byte, p *packet.Packet) segment {
	s := segment{b: b, p: p, header: 8, sumAt: udpSumAt}
	if p.Kind == packet.TCP {
		s.header, s.sumAt = int(s.l4()[12]>>4)*4, tcpSumAt
	}
	return s
}

// l4 is transport header and payload.
func (s *segment) l4() []byte {
	return s.b[packet.VnetLen+int(s.p.L4) : packet.VnetLen+int(s.p.L3)+int(s.p.Len)]
}

func (s *segment) payload() []byte { return s.l4()[s.header:] }

// options are those of TCP.
func (s *segment) options() []byte { return s.l4()[20:s.header] }

// room is the longest payload that the packet can have.
func (s *segment) room() int {
	headers := int(s.p.L4-s.p.L3) + s.header
	return min(0xffff, cap(s.b)-packet.VnetLen-int(s.p.L3)) - headers
}

// isSound reports whether the transport checksum is right, or nobody has to know.
func (s *segment) isSound() bool {
	if s.b[0]&(packet.VnetNeedsCsum|packet.VnetDataValid) != 0 {
		return true
	}
	l4 := s.l4()
	if s.p.Kind == packet.UDP && binary.BigEndian.Uint16(l4[s.sumAt:]) == 0 {
		return true
	}
	return packet.Fold(packet.Sum(s.pseudo(), l4)) == 0xffff
}

// pseudo is the sum of the pseudo header.
func (s *segment) pseudo() uint64 {
	return packet.PseudoHeader(s.p.Src, s.p.Dst, s.p.Proto, len(s.l4()))
}

// replace puts another payload of at most room bytes in the place of the old, with all lengths and sums. What then exceeds
// the MTU may be cut: TCP by the device, into segments no larger than the one that was, and UDP into fragments.
func (s *segment) replace(payload []byte, mtu int) {
	ip := s.b[packet.VnetLen+int(s.p.L3):]
	old := len(s.payload())
	end := packet.VnetLen + int(s.p.L4) + s.header + len(payload)
	s.b = s.b[:end]
	copy(s.b[end-len(payload):], payload)
	s.p.Len += uint32(len(payload) - old)
	if s.p.Kind == packet.UDP {
		binary.BigEndian.PutUint16(s.l4()[4:], uint16(s.header+len(payload)))
	}
	if len(payload) > old && int(s.p.Len) > mtu && packet.VnetHeader(s.b).GSOType() == packet.GSONone {
		s.divide(old, mtu)
	}
	s.setLength(ip)
	s.sum()
}

// setLength writes that of the packet into its IP header, and the checksum that IPv4 has there.
func (s *segment) setLength(ip []byte) {
	if s.p.IPv6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(s.p.Len-packet.IPv6Header))
		return
	}
	headerLen := int(s.p.L4 - s.p.L3)
	binary.BigEndian.PutUint16(ip[2:], uint16(s.p.Len))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(0, ip[:headerLen])))
}

// divide makes a packet one that may be cut; a datagram of IPv6 never is.
func (s *segment) divide(size, mtu int) {
	if s.p.Kind == packet.UDP && s.p.IPv6 {
		return
	}
	if s.p.Kind == packet.UDP {
		s.b[packet.VnetLen+int(s.p.L3)+6] &^= 0x40
		s.p.DontFragment = false
		return
	}
	headers := int(s.p.L4-s.p.L3) + s.header
	if size = min(size, mtu-headers); size <= 0 {
		return
	}
	packet.VnetHeader(s.b).DivideTCP(s.p, uint16(s.header), uint16(size))
}

// sum computes the transport checksum anew, or the part that is not the device's. A datagram without one stays so.
func (s *segment) sum() {
	l4, at := s.l4(), s.sumAt
	if packet.VnetHeader(s.b).NeedsCsum() {
		binary.BigEndian.PutUint16(l4[at:], packet.Fold(s.pseudo()))
		return
	}
	if s.p.Kind == packet.UDP && binary.BigEndian.Uint16(l4[at:]) == 0 {
		return
	}
	binary.BigEndian.PutUint16(l4[at:], 0)
	sum := ^packet.Fold(packet.Sum(s.pseudo(), l4))
	if sum == 0 {
		sum = 0xffff // UDP: 0 says that there is none, and TCP takes both
	}
	binary.BigEndian.PutUint16(l4[at:], sum)
}

// get32 reads a number of the TCP header at an offset.
func (s *segment) get32(at int) uint32 { return binary.BigEndian.Uint32(s.l4()[at:]) }

// put32 writes a number of the TCP header at an offset, and keeps the checksum right.
func (s *segment) put32(at int, v uint32) {
	l4 := s.l4()
	if s.get32(at) == v {
		return
	}
	var d packet.Delta
	first, end := at&^1, (at+5)&^1 // the words of the checksum that it lies in
	var old [6]byte
	copy(old[:], l4[first:end])
	binary.BigEndian.PutUint32(l4[at:], v)
	for i := first; i < end; i += 2 {
		d.Replace16(binary.BigEndian.Uint16(old[i-first:]), binary.BigEndian.Uint16(l4[i:]))
	}
	if !packet.VnetHeader(s.b).NeedsCsum() {
		binary.BigEndian.PutUint16(l4[s.sumAt:], d.Apply(binary.BigEndian.Uint16(l4[s.sumAt:])))
	}
}

// eachSACK calls yield with the offset in the TCP header of each block of a selective acknowledgement: two numbers.
func (s *segment) eachSACK(yield func(at int)) {
	options := s.options()
	for at := 0; at < len(options); {
		kind := options[at]
		if kind == 0 {
			return
		}
		if kind == 1 {
			at++
			continue
		}
		if at+1 >= len(options) {
			return
		}
		n := int(options[at+1])
		if n < 2 || at+n > len(options) {
			return
		}
		for block := at + 2; kind == sackKind && block+8 <= at+n; block += 8 {
			yield(20 + block)
		}
		at += n
	}
}
