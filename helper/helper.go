// Package helper says what an application helper is: it reads the control session of a protocol that names addresses and
// ports in its payload, makes those the outside ones, and announces the sessions that will follow. One folder deeper is one
// protocol each. All of it is pure, and every payload is hostile.
package helper

import "net/netip"

// Direction is where a payload goes.
type Direction uint8

// The directions.
const (
	Outbound Direction = iota // from the inside
	Inbound                   // to the inside
)

// Session is a control session. Proto is the IP protocol number.
type Session struct {
	Proto                   uint8
	Inside, Outside, Remote netip.AddrPort
}

// Related is a session that a control session announces. It is used once, or forgotten after some minutes.
//
// With a port inside, that endpoint is mapped on the uplink and the outside address of the control session, and Remote may
// speak to it first. Without, the inside will speak to Remote first, and goes by that uplink. A Remote without an address
// or port means any. For GRE (RFC 2637) the ports are call identifiers.
type Related struct {
	Proto          uint8
	Inside, Remote netip.AddrPort
	// Pair maps the next port inside too, to the next port outside, and the first to one of the same parity: a media
	// stream and its control (RFC 3550 §11).
	Pair bool
}

// Reserve announces a related session and tells its outside endpoint, which has no port when Related.Inside has none. The
// same announcement gets the same answer as long as it is remembered. False when it is refused: the address is not the
// control session's own host, the port is below 1024, or there is no room.
type Reserve func(Related) (outside netip.AddrPort, ok bool)

// Helper knows one protocol.
type Helper interface {
	// Name is that of the protocol, as in the configuration.
	Name() string
	// Begin starts to follow a control session.
	Begin(s Session, reserve Reserve) Conversation
}

// Conversation is one control session that is followed. Its methods are called one after the other.
type Conversation interface {
	// Rewrite returns what is to go on instead of a payload: the payload itself when nothing changes, which it must neither
	// write to nor keep. Of TCP it gets each byte of a direction once and in order, in pieces as they come; of UDP each
	// datagram. A result that no packet has room for is not used.
	Rewrite(d Direction, payload []byte) []byte
	// Done reports that nothing of the session will have to be read or changed any more.
	Done() bool
}

// Service is where the control sessions of a protocol go.
type Service struct {
	Proto uint8
	Port  uint16 // of the remote
}

// Set is the helpers in use.
type Set map[Service]Helper
