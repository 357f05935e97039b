package packet

import "encoding/binary"

const (
	moreFragments = 0x2000
	copiedOption  = 0x80 // of an IPv4 option's type: it goes into every fragment (RFC 791 §3.1)
)

// Cut divides a buffer (virtio header and frame) that p was decoded from into fragments of at most mtu bytes (RFC 791
// §3.2), first to last, each a whole buffer of its own. What is a fragment already is cut further. A transport checksum
// that was left to the device is completed before, as no device sums over several frames. Nil where the MTU has no
// room for a fragment, or the checksum is out of reach, and of IPv6, which routers never cut.
func Cut(b []byte, p *Packet, mtu int) (pieces [][]byte) {
	frame := b[VnetLen:]
	ip := frame[p.L3:][:p.Len]
	ihl := int(p.L4 - p.L3)
	if p.IPv6 || mtu < ihl+8 || !completeSum(VnetHeader(b), frame[:int(p.L3)+int(p.Len)]) {
		return nil
	}
	header, payload := ip[:ihl], ip[ihl:]
	place := binary.BigEndian.Uint16(header[6:])
	for at := 0; at < len(payload); {
		room := (mtu - len(header)) &^ 7
		end, field := len(payload), place+uint16(at/8)
		if at+room < end {
			end, field = at+room, field|moreFragments
		}
		pieces = append(pieces, piece(b[VnetLen:VnetLen+int(p.L3)], header, payload[at:end], field))
		if at == 0 {
			header = laterHeader(header)
		}
		at = end
	}
	return pieces
}

// piece makes the buffer of one fragment.
func piece(link, header, payload []byte, field uint16) []byte {
	b := make([]byte, VnetLen, VnetLen+len(link)+len(header)+len(payload))
	b = append(append(append(b, link...), header...), payload...)
	ip := b[VnetLen+len(link):]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[6:], field)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^Fold(Sum(0, ip[:len(header)])))
	return b
}

// laterHeader is the header of the fragments behind the first: with those options alone that are for every fragment.
func laterHeader(header []byte) []byte {
	later := append(make([]byte, 0, len(header)), header[:minIPv4]...)
	for options := header[minIPv4:]; len(options) > 0 && options[0] != 0; {
		n := 1 // of a no-operation
		if options[0] != 1 {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				break
			}
			n = int(options[1])
		}
		if options[0]&copiedOption != 0 {
			later = append(later, options[:n]...)
		}
		options = options[n:]
	}
	for len(later)%4 != 0 {
		later = append(later, 0)
	}
	later[0] = later[0]&0xf0 | byte(len(later)/4)
	return later
}

// completeSum does what the virtio header leaves to the device: the sum from an offset to the end, which holds that of
// the pseudo header. False when it would lie outside the frame.
func completeSum(h VnetHeader, frame []byte) bool {
	if !h.NeedsCsum() {
		return true
	}
	from := int(h.CsumStart())
	at := from + int(h.CsumOffset())
	if from > len(frame) || at+2 > len(frame) {
		return false
	}
	sum := ^Fold(Sum(0, frame[from:]))
	if sum == 0 {
		sum = 0xffff // UDP: 0 says that there is none, and TCP takes both
	}
	binary.BigEndian.PutUint16(frame[at:], sum)
	return true
}
