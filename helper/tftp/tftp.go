// Package tftp helps TFTP (RFC 1350): the server answers a request from a port that nobody knows before.
package tftp

import (
	"encoding/binary"
	"net/netip"

	"tapgw/helper"
)

const protoUDP = 17

// Opcodes of requests (RFC 1350 §5).
const (
	opRead  = 1
	opWrite = 2
)

// Helper helps TFTP.
type Helper struct{}

// Name is tftp.
func (Helper) Name() string { return "tftp" }

// Begin starts to follow a client's requests to a server.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return conversation{s, reserve}
}

type conversation struct {
	session helper.Session
	reserve helper.Reserve
}

// Done is false: a client may ask again from the same port.
func (conversation) Done() bool { return false }

// Rewrite changes nothing, but each request is answered from another port of the server.
func (c conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	if d != helper.Outbound || len(payload) < 4 {
		return payload
	}
	switch binary.BigEndian.Uint16(payload) {
	case opRead, opWrite:
		c.reserve(helper.Related{Proto: protoUDP, Inside: c.session.Inside, Remote: netip.AddrPortFrom(c.session.Remote.Addr(), 0)})
	}
	return payload
}
