package pptp

import "encoding/binary"

// Types of control messages that name calls (RFC 2637 §2).
const (
	outgoingCallRequest = 7 + iota
	outgoingCallReply
	incomingCallRequest
	incomingCallReply
	incomingCallConnected
	callClearRequest
	callDisconnectNotify
	wanErrorNotify
	setLinkInfo
)

const (
	magicCookie = 0x1a2b3c4d
	headerLen   = 12
	namesEnd    = 16 // of the call identifiers, in the messages that have some
	resultAt    = 16 // of the replies that name both ends of a call
	connected   = 1
)

// message is a control message, of which the beginning is there.
type message struct {
	b      []byte
	length int // of all of it
	kind   uint16
}

// read finds the message at the start of b.
func read(b []byte) (m message, ok bool) {
	if len(b) < headerLen || binary.BigEndian.Uint32(b[4:]) != magicCookie {
		return m, false
	}
	m = message{b: b, length: int(binary.BigEndian.Uint16(b)), kind: binary.BigEndian.Uint16(b[8:])}
	return m, m.length >= headerLen && min(len(b), m.length) >= m.needed()
}

// needed is how much of the message must be there.
func (m *message) needed() int {
	switch {
	case m.kind < outgoingCallRequest || m.kind > setLinkInfo:
		return headerLen
	case m.namesBoth():
		return resultAt + 1
	}
	return namesEnd
}

// namesBoth reports whether the message names both ends of a call, and what became of it.
func (m *message) namesBoth() bool { return m.kind == outgoingCallReply || m.kind == incomingCallReply }

// begins reports whether the message is where its sender tells an identifier first.
func (m *message) begins() bool { return m.kind >= outgoingCallRequest && m.kind <= incomingCallReply }

// connects reports whether the message says that a call is there, with both identifiers.
func (m *message) connects() bool { return m.namesBoth() && m.b[resultAt] == connected }

// own is where the identifier is that the sender has chosen, 0 for none.
func (m *message) own() int {
	switch m.kind {
	case outgoingCallRequest, outgoingCallReply, incomingCallRequest, incomingCallReply, callClearRequest, callDisconnectNotify:
		return headerLen
	}
	return 0
}

// peers is where the identifier is that the receiver has chosen, 0 for none.
func (m *message) peers() int {
	switch m.kind {
	case outgoingCallReply, incomingCallReply:
		return headerLen + 2
	case incomingCallConnected, wanErrorNotify, setLinkInfo:
		return headerLen
	}
	return 0
}

func (m *message) id(at int) uint16 { return binary.BigEndian.Uint16(m.b[at:]) }
