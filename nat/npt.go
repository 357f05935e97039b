package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tapgw/internal/packet"
)

// PrefixPair translates addresses of a prefix inside to addresses of a prefix outside and back, by computing alone (NPTv6, RFC
// 6296). What it changes of an address adds nothing to a sum over 16-bit words, so checksums of any protocol stay as they are.
type PrefixPair struct {
	inside, outside packet.Addr // beyond the prefix all zero
	mask            packet.Addr
	adjustment      uint16 // what is added to a word on the way out, below 0xffff
	first, last     int    // words of which the first one that is not 0xffff is adjusted
	identical       bool
}

// Unmapped says why an address has none on the other side.
type Unmapped uint8

// The reasons. What a translator answers for the last two differs (RFC 6296 §4.2 and §3.7).
const (
	Translated Unmapped = iota // it has one
	Foreign                    // it lies beyond the prefix
	NoSubnet                   // there is no word that can be adjusted: subnet 0xffff, for one
	NoHost                     // behind a prefix longer than /48 the interface identifier would be all zero, on one of the sides
)

// Lengths of prefixes, in bits.
const (
	subnetted       = 48  // up to here the subnet is adjusted, beyond the interface identifier (RFC 6296 §3.4, §3.5)
	longestToAdjust = 112 // a whole word must be left
)

// notUnicast are the prefixes that no host on the Internet has an address in (RFC 4291 §2.4, RFC 6890).
var notUnicast = []netip.Prefix{netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/8")}

// NewPrefixPair pairs two prefixes of IPv6. The shorter one is extended by zeros to the length of the other (RFC 6296 §3.1).
func NewPrefixPair(inside, outside netip.Prefix) (PrefixPair, error) {
	length := max(inside.Bits(), outside.Bits())
	for _, p := range []netip.Prefix{inside, outside} {
		if err := checkPrefix(p); err != nil {
			return PrefixPair{}, err
		}
	}
	p := PrefixPair{
		inside: packet.AddrOf(inside.Masked().Addr()), outside: packet.AddrOf(outside.Masked().Addr()), mask: maskOf(length),
		first: 3, last: 3,
	}
	if length > subnetted {
		p.first, p.last = max(4, (length+15)/16), 7
	}
	p.adjustment = addWords(wordSum(p.inside), ^wordSum(p.outside))
	p.identical = p.inside == p.outside
	return p, nil
}

func checkPrefix(p netip.Prefix) error {
	if !p.IsValid() || !p.Addr().Is6() || p.Addr().Is4In6() {
		return fmt.Errorf("nat: %s is no prefix of IPv6", p)
	}
	if p.Bits() > longestToAdjust {
		return fmt.Errorf("nat: %s leaves no word to adjust, use /%d or shorter", p, longestToAdjust)
	}
	for _, n := range notUnicast {
		if p.Overlaps(n) {
			return errors.New("nat: " + p.String() + " holds addresses that are not unicast")
		}
	}
	return nil
}

// HasInside reports whether an address lies in the prefix inside.
func (p *PrefixPair) HasInside(a packet.Addr) bool { return p.masked(a) == p.inside }

// HasOutside reports whether an address lies in the prefix outside.
func (p *PrefixPair) HasOutside(a packet.Addr) bool { return p.masked(a) == p.outside }

// Out translates an address of the inside; anything but Translated says why there is none.
func (p *PrefixPair) Out(inside packet.Addr) (outside packet.Addr, why Unmapped) {
	if !p.HasInside(inside) {
		return packet.Addr{}, Foreign
	}
	return p.translate(inside, p.outside, p.adjustment)
}

// In translates an address of the outside back.
func (p *PrefixPair) In(outside packet.Addr) (inside packet.Addr, why Unmapped) {
	if !p.HasOutside(outside) {
		return packet.Addr{}, Foreign
	}
	return p.translate(outside, p.inside, addWords(^p.adjustment, 0))
}

// translate puts a behind another prefix, and adjusts the first word of those that may be which can be.
func (p *PrefixPair) translate(a, prefix packet.Addr, adjustment uint16) (packet.Addr, Unmapped) {
	if p.identical {
		return a, Translated
	}
	to := packet.Addr{Hi: prefix.Hi | a.Hi&^p.mask.Hi, Lo: prefix.Lo | a.Lo&^p.mask.Lo}
	for i := p.first; i <= p.last; i++ {
		w := word(a, i)
		if w == 0xffff {
			continue
		}
		to = withWord(to, i, addWords(w, adjustment))
		if p.first > 3 && (a.Lo&^p.mask.Lo == 0 || to.Lo&^p.mask.Lo == 0) {
			return packet.Addr{}, NoHost
		}
		return to, Translated
	}
	return packet.Addr{}, NoSubnet
}

func (p *PrefixPair) masked(a packet.Addr) packet.Addr {
	return packet.Addr{Hi: a.Hi & p.mask.Hi, Lo: a.Lo & p.mask.Lo}
}

// maskOf has the first bits set.
func maskOf(length int) packet.Addr {
	return packet.Addr{Hi: ^uint64(0) << max(0, 64-length), Lo: ^(^uint64(0) >> max(0, length-64))}
}

// word is one of the eight words of an address, the first one 0.
func word(a packet.Addr, i int) uint16 {
	if i < 4 {
		return uint16(a.Hi >> (16 * (3 - i)))
	}
	return uint16(a.Lo >> (16 * (7 - i)))
}

func withWord(a packet.Addr, i int, w uint16) packet.Addr {
	half, shift := &a.Hi, 16*(3-i)
	if i >= 4 {
		half, shift = &a.Lo, 16*(7-i)
	}
	*half = *half&^(0xffff<<shift) | uint64(w)<<shift
	return a
}

// wordSum is the one's complement sum of an address's words.
func wordSum(a packet.Addr) (sum uint16) {
	for i := range 8 {
		sum = addWords(sum, word(a, i))
	}
	return sum
}

// addWords adds in one's complement arithmetic, where 0xffff is another 0, which is never the result (RFC 6296 §3.4).
func addWords(a, b uint16) uint16 { return uint16((uint32(a) + uint32(b)) % 0xffff) }

func (b *Binding) isComputed() bool { return b.Computed != packet.Addr{} }

// IsEmpty reports whether there is no outside address in b.
func (b *Binding) IsEmpty() bool { return len(b.Addresses) == 0 && !b.isComputed() }

// has reports whether a mapping at an outside address can serve sessions of b.
func (b *Binding) has(outside packet.Addr) bool {
	return b.isComputed() && outside == b.Computed || slices.Contains(b.Addresses, outside)
}

// takeComputed is takeOutside for a computed address: every port of it is there without being kept, as there are more addresses than
// memory. It can be another's for a while after the address was one of the pool.
func (t *Table) takeComputed(k Key, b Binding) (outside packet.Addr, port uint16, err error) {
	if r := t.FindIn(inKey(k, b.Uplink, b.Computed, k.InsidePort)); r != 0 && t.Translation(r).Key != k {
		return packet.Addr{}, 0, ErrNoPort
	}
	return b.Computed, k.InsidePort, nil
}
