package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// FilterConfig says which received packets may be ours.
type FilterConfig struct {
	Addresses []netip.Addr // IPv4 addresses of the uplinks; none lets nothing pass
	Whole     []netip.Addr // those of Addresses to which everything is received
	Ports     []PortRange  // of the NAT pool
	Services  []uint16     // UDP ports beyond, packets to which are received although the host has them too
	Secret    [6]byte      // source address of frames given back to the host (GiveBackMAC)
}

// Bounds of FilterConfig: the program stays far below the kernel's 4,096 instructions.
const (
	MaxFilterAddresses = 256
	MaxFilterPorts     = 512
	MaxFilterServices  = 256
)

// ErrFilter is returned for a FilterConfig beyond its bounds.
var ErrFilter = errors.New("socket filter out of bounds")

// ICMP types a translator can be addressed by: answers to queries, and errors.
var icmpOurs = []uint32{packet.ICMPEchoReply, packet.ICMPTimestampReply, packet.ICMPUnreachable, packet.ICMPTimeExceeded, packet.ICMPParameter}

const (
	etherIPv4 = 0x0800
	vlanID    = 0x0fff  // in a tag
	accept    = 0x40000 // more bytes than any packet has
)

// program builds the filter: IPv4 for this host, to one of the addresses, not given back; TCP and UDP with a destination
// port of the pool; UDP to a service; ICMP answers and errors; all other protocols but IGMP; any fragment. Each refusal returns in
// place, so no jump is long.
func program(c FilterConfig, headerLess bool) ([]bpf.Instruction, error) {
	if len(c.Addresses) > MaxFilterAddresses || len(c.Whole) > MaxFilterAddresses || len(c.Ports) > MaxFilterPorts || len(c.Services) > MaxFilterServices {
		return nil, fmt.Errorf("%d addresses, %d port ranges and %d services, at most %d, %d and %d are allowed: %w", len(c.Addresses),
			len(c.Ports), len(c.Services), MaxFilterAddresses, MaxFilterPorts, MaxFilterServices, ErrFilter)
	}
	var a assembler
	l3 := uint32(packet.EthernetLen)
	if headerLess {
		l3 = 0
	}
	a.forHost()
	a.notGivenBack(c.Secret)
	a.toAddress(c, l3)
	a.transport(c, l3)
	return a.code, nil
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
	a.add(bpf.LoadExtension{Num: bpf.ExtProto})
	a.require(etherIPv4)
}

// linkHeader is the offset (SKF_LL_OFF) from which the kernel counts from the Ethernet header. A given-back frame still has
// one on a header-less device, before what the socket is shown; of another packet the IPv4 header is compared.
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

func (a *assembler) toAddress(c FilterConfig, l3 uint32) {
	a.add(bpf.LoadAbsolute{Off: l3 + 16, Size: 4})
	for _, addr := range c.Whole {
		a.when(bpf.JumpEqual, packet.HostOrder(addr), bpf.RetConstant{Val: accept})
	}
	addrs := c.Addresses
	for i, addr := range addrs {
		rest := uint32(len(addrs)-i-1)*2 + 1 // further comparisons, and the refusal
		a.when(bpf.JumpEqual, packet.HostOrder(addr), bpf.Jump{Skip: rest})
	}
	a.add(bpf.RetConstant{})
}

func (a *assembler) transport(c FilterConfig, l3 uint32) {
	a.add(bpf.LoadAbsolute{Off: l3 + 6, Size: 2})
	a.when(bpf.JumpBitsSet, 0x3fff, bpf.RetConstant{Val: accept}) // a fragment: offset or more to come
	a.add(bpf.LoadMemShift{Off: l3}, bpf.LoadAbsolute{Off: l3 + 9, Size: 1})
	a.when(bpf.JumpEqual, packet.ProtoIGMP, bpf.RetConstant{})
	a.add(
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ProtoTCP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ProtoUDP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ProtoICMP, SkipTrue: 1},
		bpf.RetConstant{Val: accept},
	)
	var ports assembler
	ports.ports(c, l3)
	a.when(bpf.JumpEqual, packet.ProtoICMP, bpf.Jump{Skip: uint32(len(ports.code))})
	a.add(ports.code...)
	a.add(bpf.LoadIndirect{Off: l3, Size: 1})
	for _, t := range icmpOurs {
		a.when(bpf.JumpEqual, t, bpf.RetConstant{Val: accept})
	}
	a.add(bpf.RetConstant{})
}

// ports decides about TCP and UDP.
func (a *assembler) ports(c FilterConfig, l3 uint32) {
	a.add(bpf.LoadIndirect{Off: l3 + 2, Size: 2})
	for _, r := range c.Ports {
		a.add(bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(r.First), SkipTrue: 2})
		a.when(bpf.JumpLessOrEqual, uint32(r.Last), bpf.RetConstant{Val: accept})
	}
	a.add(bpf.LoadAbsolute{Off: l3 + 9, Size: 1})
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
