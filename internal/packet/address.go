package packet

import (
	"encoding/binary"
	"net/netip"
)

// HostOrder is an IPv4 address, also one mapped into IPv6 (RFC 4291 §2.5.5.2), as the number that headers are decoded to:
// 192.0.2.1 is 0xc0000201. It panics for any other address.
func HostOrder(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// AddrOf is the IPv4 address of which HostOrder is a.
func AddrOf(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}
