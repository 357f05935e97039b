package packet

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IPv6 address in host order, or an IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2). It is what headers are
// decoded to, and compares by ==.
type Addr struct{ Hi, Lo uint64 }

// mapped stands above the 32 bits of an IPv4 address.
const mapped = 0xffff << 32

// IPv4 is the address whose number in host order is a: 192.0.2.1 is 0xc0000201.
func IPv4(a uint32) Addr { return Addr{Lo: mapped | uint64(a)} }

// AddrOf converts an address; one without a value is ::.
func AddrOf(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	b := a.As16()
	return Addr{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// Is4 reports whether a is an IPv4 address.
func (a Addr) Is4() bool { return a.Hi == 0 && a.Lo>>32 == mapped>>32 }

// V4 is the number of an IPv4 address in host order.
func (a Addr) V4() uint32 { return uint32(a.Lo) }

// Netip converts a, to an IPv4 address where it is one.
func (a Addr) Netip() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b).Unmap()
}

// HostOrder is an IPv4 address, also one mapped into IPv6, as a number in host order. It panics for any other address.
func HostOrder(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
