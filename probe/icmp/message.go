package icmp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// Messages are read in place, since what arrives may be forged: RFC 792 header of 8 bytes, then the payload of an echo, or of
// an error the IPv4 header (20 bytes, we send no options) and at least 8 bytes of the datagram it is about.
const (
	typeReply        = 0
	typeUnreachable  = 3
	typeEcho         = 8
	typeTimeExceeded = 11

	headerLen   = 8
	quotedIPLen = 20
	quotedEcho  = headerLen + quotedIPLen
	minError    = quotedEcho + headerLen
	offsetSeq   = 6
	protoICMP   = 1
	plainIPv4   = 0x45 // version 4, header of 20 bytes

	// Identifiers lie in the ephemeral port range of Linux.
	firstID = 32768
	countID = 60999 - firstID + 1
)

// sequence finds the sequence number of the request that a reply answers or an error quotes.
func sequence(m []byte) (uint16, bool) {
	switch {
	case len(m) < headerLen:
		return 0, false
	case m[0] == typeReply:
		return binary.BigEndian.Uint16(m[offsetSeq:]), true
	case m[0] != typeUnreachable && m[0] != typeTimeExceeded, len(m) < minError:
		return 0, false
	}
	quoted := m[headerLen:]
	if quoted[0] != plainIPv4 || quoted[9] != protoICMP || quoted[quotedIPLen] != typeEcho {
		return 0, false
	}
	return binary.BigEndian.Uint16(m[quotedEcho+offsetSeq:]), true
}

// judge reports whether message, for which sequence has found e, is truly about e; err is nil for a reply.
func (e *echo) judge(m []byte, from, source netip.Addr) (ours bool, err error) {
	if m[0] == typeReply {
		// Everything after type and checksum comes back as it was sent.
		return from == e.dst && bytes.Equal(m[4:], e.request[4:]), nil
	}
	quoted := m[headerLen:]
	src, dst := source.As4(), e.dst.As4()
	if !bytes.Equal(quoted[12:16], src[:]) || !bytes.Equal(quoted[16:20], dst[:]) ||
		!bytes.Equal(m[quotedEcho:minError], e.request[:headerLen]) {
		return false, nil
	}
	return true, fmt.Errorf("%s, says %s", describe(m[0], m[1]), from)
}

// describe is the meaning of an ICMP error (RFC 792, RFC 1812 §5.2.7).
func describe(kind, code byte) string {
	if kind == typeTimeExceeded {
		return "time to live exceeded, probably a routing loop"
	}
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

// filter is a socket filter that passes only echo replies with our identifier and errors that quote an echo request with it:
// the replies to all translated pings, and floods, do not wake us. The socket sees the IPv4 header first.
func filter(id uint16) []bpf.RawInstruction {
	const ip = 20 // offset of the quoted header's end, beyond X
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadMemShift{Off: 0}, // X = length of the IPv4 header
		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeReply, SkipFalse: 2},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.Jump{Skip: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeUnreachable, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeTimeExceeded, SkipTrue: 5},
		bpf.LoadIndirect{Off: headerLen + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoICMP, SkipTrue: 3},
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
