package packet

import "encoding/binary"

// Sum adds b to an Internet checksum accumulator (RFC 1071); an odd last byte counts as the high half of a word.
func Sum(acc uint64, b []byte) uint64 {
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		acc += v>>32 + v&0xffffffff
		b = b[8:]
	}
	for len(b) >= 2 {
		acc += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	return acc
}

// Fold reduces an accumulator to the 16-bit one's complement sum (not inverted).
func Fold(acc uint64) uint16 {
	for acc > 0xffff {
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc)
}

// PseudoHeader is the one's complement sum of the pseudo header for a payload of n bytes (RFC 9293 §3.1, RFC 8200 §8.1).
func PseudoHeader(src, dst Addr, proto uint8, n int) uint64 {
	return src.sum() + dst.sum() + uint64(proto) + uint64(n)
}

// sum adds up what pseudo headers hold of an address. The words that map an IPv4 address into IPv6 count nothing.
func (a Addr) sum() (acc uint64) {
	if a.Is4() {
		a.Lo &^= mapped
	}
	for _, half := range [2]uint64{a.Hi, a.Lo} {
		acc += half>>48 + half>>32&0xffff + half>>16&0xffff + half&0xffff
	}
	return acc
}

// Delta is a pending change of a checksum: the sum of the new words and of the inverted old ones (RFC 1624 eqn. 3).
type Delta uint32

// Replace16 adds the replacement of one aligned 16-bit word.
func (d *Delta) Replace16(from, to uint16) { *d += Delta(^from) + Delta(to) }

// Replace32 adds the replacement of one aligned 32-bit word.
func (d *Delta) Replace32(from, to uint32) {
	d.Replace16(uint16(from>>16), uint16(to>>16))
	d.Replace16(uint16(from), uint16(to))
}

// Apply returns the checksum field after the change.
func (d Delta) Apply(field uint16) uint16 { return ^Fold(uint64(^field) + uint64(d)) }

// ApplySeed changes a field that holds the sum of the pseudo header alone, not inverted: what the kernel leaves for the
// device when VnetNeedsCsum is set. Only address changes may be in d, the rest is summed later.
func (d Delta) ApplySeed(field uint16) uint16 { return Fold(uint64(field) + uint64(d)) }
