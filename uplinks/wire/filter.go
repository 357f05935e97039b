package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// FilterConfig says which received packets may be ours.
type FilterConfig struct {
	Addresses []netip.Addr // of the uplinks, of both families; none lets nothing pass
	Whole     []netip.Addr // those of Addresses to which everything is received
	Ports     []PortRange  // of the NAT pool
	Services  []uint16     // UDP ports beyond, packets to which are received although the host has them too
	Secret    [6]byte      // source address of frames given back to the host (GiveBackMAC)

	Prefixes []netip.Prefix // of IPv6, to which everything is received but what is to one of Addresses
}

// Bounds of FilterConfig: the program stays below the kernel's 4,096 instructions.
const (
	MaxFilterAddresses   = 256 // of IPv4
	MaxFilterAddressesV6 = 128 // of IPv6
	MaxFilterPrefixes    = 24
	MaxFilterPorts       = 512
	MaxFilterServices    = 256
)

// ErrFilter is returned for a FilterConfig beyond its bounds.
var ErrFilter = errors.New("socket filter out of bounds")

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	vlanID    = 0x0fff  // in a tag
	accept    = 0x40000 // more bytes than any packet has
)

// program builds the filter: IP for this host, to one of the addresses, not given back; TCP and UDP with a destination
// port of the pool; UDP to a service; ICMP answers and errors; all other protocols but IGMP; any fragment, and of IPv6 all with
// extension headers, but no neighbour discovery. Each refusal returns in place, so no jump is long.
func program(c FilterConfig, headerLess bool) ([]bpf.Instruction, error) {
	v4, v6 := byFamily(c.Addresses)
	if len(v4) > MaxFilterAddresses || len(v6) > MaxFilterAddressesV6 || len(c.Ports) > MaxFilterPorts || len(c.Services) > MaxFilterServices {
		return nil, fmt.Errorf("%d addresses of IPv4, %d of IPv6, %d port ranges and %d services, at most %d, %d, %d and %d are allowed: %w",
			len(v4), len(v6), len(c.Ports), len(c.Services), MaxFilterAddresses, MaxFilterAddressesV6, MaxFilterPorts, MaxFilterServices, ErrFilter)
	}
	if n := len(c.Prefixes); n > MaxFilterPrefixes {
		return nil, fmt.Errorf("%d prefixes, at most %d are allowed: %w", n, MaxFilterPrefixes, ErrFilter)
	}
	l3 := uint32(packet.EthernetLen)
	if headerLess {
		l3 = 0
	}
	ours := func(addr netip.Addr) bool { return slices.Contains(c.Whole, addr) }
	var a, of4, of6 assembler
	of6.ipv6(v6, ours, c.Prefixes, l3)
	of4.ipv4(v4, ours, l3, len(of6.code))
	a.forHost()
	a.notGivenBack(c.Secret)
	a.add(bpf.LoadExtension{Num: bpf.ExtProto})
	a.when(bpf.JumpEqual, etherIPv6, bpf.Jump{Skip: uint32(len(of4.code) + 2)})
	a.require(etherIPv4)
	a.add(of4.code...)
	a.add(of6.code...)
	a.ports(c, l3)
	return a.code, nil
}

func byFamily(list []netip.Addr) (v4, v6 []netip.Addr) {
	for _, a := range list {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

type assembler struct{ code []bpf.Instruction }

func (a *assembler) add(i ...bpf.Instruction) { a.code = append(a.code, i...) }

// require refuses the packet unless the accumulator holds val.
func (a *assembler) require(val uint32) {
	a.add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: val, SkipTrue: 1}, bpf.RetConstant{})
}

// when runs an instruction only if the comparison holds.
func (a *assembler) when(cond bpf.JumpTest, val uint32, then bpf.Instruction) {
	a.add(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1}, then)
}

// forHost leaves out other machines' packets (promiscuous mode) and those of VLANs above the device. A tag with a priority
// and no VLAN (IEEE 802.1Q), which the kernel has taken off the frame, makes no difference.
func (a *assembler) forHost() {
	a.add(bpf.LoadExtension{Num: bpf.ExtType})
	a.require(unix.PACKET_HOST)
	a.add(
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: vlanID, SkipTrue: 1},
		bpf.RetConstant{},
	)
}

// linkHeader is the offset (SKF_LL_OFF) from which the kernel counts from the Ethernet header. A given-back frame still has
// one on a header-less device, before what the socket is shown; of another packet the IP header is compared.
const linkHeader = 0xffe00000

func (a *assembler) notGivenBack(secret [6]byte) {
	a.add(
		bpf.LoadAbsolute{Off: linkHeader + 6, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(secret[:]), SkipTrue: 3},
		bpf.LoadAbsolute{Off: linkHeader + 10, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(binary.BigEndian.Uint16(secret[4:])), SkipTrue: 1},
		bpf.RetConstant{},
	)
}

// protocolAt is where the program remembers the protocol of a packet.
const protocolAt = 0

// ports decides about TCP and UDP, whose header begins X bytes behind l3.
func (a *assembler) ports(c FilterConfig, l3 uint32) {
	a.add(bpf.LoadIndirect{Off: l3 + 2, Size: 2})
	for _, r := range c.Ports {
		a.add(bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(r.First), SkipTrue: 2})
		a.when(bpf.JumpLessOrEqual, uint32(r.Last), bpf.RetConstant{Val: accept})
	}
	a.add(bpf.LoadScratch{Dst: bpf.RegA, N: protocolAt})
	a.require(packet.ProtoUDP)
	a.add(bpf.LoadIndirect{Off: l3 + 2, Size: 2})
	for _, port := range c.Services {
		a.when(bpf.JumpEqual, uint32(port), bpf.RetConstant{Val: accept})
	}
	a.add(bpf.RetConstant{})
}

// refuseAll lets nothing pass.
var refuseAll = []bpf.Instruction{bpf.RetConstant{}}

// attach makes prog the filter of a socket, in place of the one before.
func attach(fd int, prog []bpf.Instruction) error {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return fmt.Errorf("assemble socket filter: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(raw)), Filter: (*unix.SockFilter)(unsafe.Pointer(&raw[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
		return fmt.Errorf("attach socket filter: %w", err)
	}
	return nil
}
