package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"

	"tapgw/internal/packet"
)

// protocols are those of a family that are judged by more than their number.
type protocols struct {
	icmp  uint32
	ours  []uint32 // types of it that a translator can be addressed by: answers to queries, and errors
	never []uint32 // protocols that are the host's alone, or nobody's
}

var (
	protocolsV4 = protocols{
		packet.ProtoICMP,
		[]uint32{packet.ICMPEchoReply, packet.ICMPTimestampReply, packet.ICMPUnreachable, packet.ICMPTimeExceeded, packet.ICMPParameter},
		[]uint32{packet.ProtoIGMP},
	}
	protocolsV6 = protocols{
		packet.ProtoICMPv6,
		[]uint32{packet.ICMPv6EchoReply, packet.ICMPv6Unreachable, packet.ICMPv6TooBig, packet.ICMPv6TimeExceeded, packet.ICMPv6Parameter},
		[]uint32{packet.ProtoICMP, packet.ProtoIGMP},
	}
)

// ipv4 decides about packets of IPv4, of which TCP and UDP is left to what follows behind so many instructions of others.
func (a *assembler) ipv4(addrs []netip.Addr, whole func(netip.Addr) bool, l3 uint32, behind int) {
	a.add(bpf.LoadAbsolute{Off: l3 + 16, Size: 4})
	a.toAddress(addrs, whole, func(addr netip.Addr, then bpf.Instruction) {
		a.when(bpf.JumpEqual, packet.HostOrder(addr), then)
	}, 2, nil)
	a.add(bpf.LoadAbsolute{Off: l3 + 6, Size: 2})
	a.when(bpf.JumpBitsSet, 0x3fff, bpf.RetConstant{Val: accept}) // a fragment: offset or more to come
	a.add(bpf.LoadMemShift{Off: l3}, bpf.LoadAbsolute{Off: l3 + 9, Size: 1})
	a.transport(protocolsV4, l3, behind)
}

// Places in the IPv6 header, bytes (RFC 8200 §3).
const (
	nextHeaderV6  = 6
	destinationV6 = 24
)

// ipv6 is ipv4 for IPv6, and accepts what is to an address of a prefix and none of the others. An extension header is a protocol
// as any other.
func (a *assembler) ipv6(addrs []netip.Addr, whole func(netip.Addr) bool, prefixes []netip.Prefix, l3 uint32) {
	a.notLocal(l3)
	var within assembler
	for _, p := range prefixes {
		within.inPrefix(p, l3)
	}
	a.toAddress(addrs, whole, func(addr netip.Addr, then bpf.Instruction) { a.matchV6(addr, l3, then) }, 9, within.code)
	a.add(bpf.LoadConstant{Dst: bpf.RegX, Val: packet.IPv6Header}, bpf.LoadAbsolute{Off: l3 + nextHeaderV6, Size: 1})
	a.transport(protocolsV6, l3, 0)
}

// notLocal refuses neighbour and listener discovery, which is the host's at any address.
func (a *assembler) notLocal(l3 uint32) {
	a.add(
		bpf.LoadAbsolute{Off: l3 + nextHeaderV6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: packet.ProtoICMPv6, SkipTrue: 5},
		bpf.LoadAbsolute{Off: l3 + packet.IPv6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ICMPv6Listener, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: packet.ICMPv6FirstLocal, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: packet.ICMPv6LastLocal, SkipTrue: 1},
		bpf.RetConstant{},
	)
}

// matchV6 compares the word that differs most first.
func (a *assembler) matchV6(addr netip.Addr, l3 uint32, then bpf.Instruction) {
	bytes := addr.As16()
	for word := uint32(3); ; word-- {
		a.add(
			bpf.LoadAbsolute{Off: l3 + destinationV6 + 4*word, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(bytes[4*word:]), SkipTrue: uint8(2*word + 1)},
		)
		if word == 0 {
			break
		}
	}
	a.add(then)
}

// inPrefix accepts what is to a prefix.
func (a *assembler) inPrefix(p netip.Prefix, l3 uint32) {
	const compared, masked = 2, 3 // instructions for a word
	bytes, full, rest := p.Masked().Addr().As16(), p.Bits()/32, p.Bits()%32
	left := compared*full + 1
	if rest > 0 {
		left += masked
	}
	for word := range full {
		left -= compared
		a.add(
			bpf.LoadAbsolute{Off: l3 + destinationV6 + 4*uint32(word), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(bytes[4*word:]), SkipTrue: uint8(left)},
		)
	}
	if rest > 0 {
		a.add(
			bpf.LoadAbsolute{Off: l3 + destinationV6 + 4*uint32(full), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - rest)},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(bytes[4*full:]), SkipTrue: 1},
		)
	}
	a.add(bpf.RetConstant{Val: accept})
}

// toAddress refuses what is for none of the addresses, each of which match compares with so many instructions, unless what is given
// accepts it; and accepts what is for a whole one.
func (a *assembler) toAddress(
	addrs []netip.Addr, whole func(netip.Addr) bool, match func(netip.Addr, bpf.Instruction), size int, otherwise []bpf.Instruction,
) {
	for i, addr := range addrs {
		if whole(addr) {
			match(addr, bpf.RetConstant{Val: accept})
			continue
		}
		match(addr, bpf.Jump{Skip: uint32((len(addrs)-i-1)*size+len(otherwise)) + 1}) // over further comparisons, and the refusal
	}
	a.add(otherwise...)
	a.add(bpf.RetConstant{})
}

// transport decides by the protocol, which is in the accumulator; X is where its header begins behind l3.
func (a *assembler) transport(p protocols, l3 uint32, behind int) {
	a.add(bpf.StoreScratch{Src: bpf.RegA, N: protocolAt})
	for _, never := range p.never {
		a.when(bpf.JumpEqual, never, bpf.RetConstant{})
	}
	types := 2*len(p.ours) + 2
	a.add(
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: p.icmp, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ProtoTCP, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packet.ProtoUDP, SkipTrue: 1},
		bpf.RetConstant{Val: accept},
		bpf.Jump{Skip: uint32(types + behind)},
		bpf.LoadIndirect{Off: l3, Size: 1},
	)
	for _, t := range p.ours {
		a.when(bpf.JumpEqual, t, bpf.RetConstant{Val: accept})
	}
	a.add(bpf.RetConstant{})
}
