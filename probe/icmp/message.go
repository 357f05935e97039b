package icmp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Messages are read in place, since what arrives may be forged: a header of 8 bytes, then the payload of an echo, or of an
// error the IP header (we send neither options nor extensions) and the datagram it is about: at least 8 bytes of it.
const (
	headerLen = 8
	offsetSeq = 6

	// Identifiers lie in the ephemeral port range of Linux.
	firstID = 32768
	countID = 60999 - firstID + 1
)

// protocol is how echoes and errors look: ICMP (RFC 792) or ICMPv6 (RFC 4443).
type protocol struct {
	echo                      icmp.Type
	request, reply            byte // numbers of the types
	unreachable, timeExceeded byte
	network                   string // for net.ListenPacket

	quotedIP int  // length of the quoted IP header
	version  byte // the first of it, as far as the mask goes
	mask     byte
	number   byte // of the protocol, and where it is quoted
	numberAt int
	source   int // offset of the quoted source, behind which the destination follows
	// An error must quote a request from known to proof. The checksum of ICMP covers the payload, that of ICMPv6 is the
	// kernel's, but routers quote all that fits.
	known, proof int
	describe     func(code byte) string // why something is unreachable
}

var icmpV4 = protocol{
	echo: ipv4.ICMPTypeEcho, request: 8, reply: 0, unreachable: 3, timeExceeded: 11, network: "ip4:icmp",
	quotedIP: 20, version: 0x45, mask: 0xff, number: 1, numberAt: 9, source: 12, proof: headerLen, describe: describeV4,
}

var icmpV6 = protocol{
	echo: ipv6.ICMPTypeEchoRequest, request: 128, reply: 129, unreachable: 1, timeExceeded: 3, network: "ip6:ipv6-icmp",
	quotedIP: 40, version: 0x60, mask: 0xf0, number: 58, numberAt: 6, source: 8, known: 4, proof: headerLen + cookieLen, describe: describeV6,
}

// protocolOf is that of an address's family.
func protocolOf(a netip.Addr) *protocol {
	if a.Is6() {
		return &icmpV6
	}
	return &icmpV4
}

// quotedEcho is where the quoted request begins.
func (p *protocol) quotedEcho() int { return headerLen + p.quotedIP }

// sequence finds the sequence number of the request that a reply answers or an error quotes.
func (p *protocol) sequence(m []byte) (uint16, bool) {
	switch {
	case len(m) < headerLen:
		return 0, false
	case m[0] == p.reply:
		return binary.BigEndian.Uint16(m[offsetSeq:]), true
	case m[0] != p.unreachable && m[0] != p.timeExceeded, len(m) < p.quotedEcho()+p.proof:
		return 0, false
	}
	quoted := m[headerLen:]
	if quoted[0]&p.mask != p.version || quoted[p.numberAt] != p.number || quoted[p.quotedIP] != p.request {
		return 0, false
	}
	return binary.BigEndian.Uint16(m[p.quotedEcho()+offsetSeq:]), true
}

// judge reports whether message, for which sequence has found e, is truly about e; err is nil for a reply.
func (e *echo) judge(m []byte, from, source netip.Addr) (ours bool, err error) {
	p := protocolOf(e.dst)
	if m[0] == p.reply {
		// Everything after type and checksum comes back as it was sent.
		return from == e.dst && bytes.Equal(m[4:], e.request[4:]), nil
	}
	ends := append(source.AsSlice(), e.dst.AsSlice()...)
	echo := m[p.quotedEcho():][:p.proof]
	if !bytes.Equal(m[headerLen+p.source:][:len(ends)], ends) || !bytes.Equal(echo[p.known:], e.request[p.known:p.proof]) {
		return false, nil
	}
	what := "time to live exceeded, probably a routing loop"
	if m[0] == p.unreachable {
		what = p.describe(m[1])
	}
	return true, fmt.Errorf("%s, says %s", what, from)
}

// describeV4 is the meaning of a code of ICMP (RFC 792, RFC 1812 §5.2.7).
func describeV4(code byte) string {
	switch code {
	case 0, 6, 11:
		return "network unreachable"
	case 1, 7, 12:
		return "host unreachable"
	case 9, 10, 13:
		return "administratively prohibited"
	}
	return fmt.Sprintf("unreachable (code %d)", code)
}

// describeV6 is the meaning of a code of ICMPv6 (RFC 4443 §3.1).
func describeV6(code byte) string {
	switch code {
	case 0:
		return "network unreachable"
	case 1:
		return "administratively prohibited"
	case 3:
		return "host unreachable"
	case 5, 6:
		return "source address rejected"
	}
	return fmt.Sprintf("unreachable (code %d)", code)
}

// filter is a socket filter that passes only echo replies with our identifier and errors that quote an echo request with it:
// the replies to all translated pings, and floods, do not wake us. The socket sees the IPv4 header first.
func filter(id uint16) []bpf.RawInstruction {
	const ip = 20 // offset of the quoted header's end, beyond X
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadMemShift{Off: 0}, // X = length of the IPv4 header
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(icmpV4.reply), SkipFalse: 2},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.Jump{Skip: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(icmpV4.unreachable), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(icmpV4.timeExceeded), SkipTrue: 5},
		bpf.LoadIndirect{Off: headerLen + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(icmpV4.number), SkipTrue: 3},
		bpf.LoadIndirect{Off: headerLen + ip + 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(id), SkipTrue: 1},
		bpf.RetConstant{Val: 65535},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // the program is constant but for the identifier
	}
	return program
}

// filterV6 is the same for a raw socket of ICMPv6, which can only tell types apart.
func filterV6() *ipv6.ICMPFilter {
	f := new(ipv6.ICMPFilter)
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeEchoReply)
	f.Accept(ipv6.ICMPTypeDestinationUnreachable)
	f.Accept(ipv6.ICMPTypeTimeExceeded)
	return f
}
