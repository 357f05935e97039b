// Package pptp rewrites the control connections of PPTP (RFC 2637): the call identifiers that the inside chose become ones that
// no other client of ours has with the same remote, and the GRE of the calls is announced by them. Messages keep their length.
package pptp

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"tapgw/helper"
	"tapgw/helper/internal/ends"
)

const protoGRE = 47

// Helper helps PPTP.
type Helper struct{}

// Name is pptp.
func (Helper) Name() string { return "pptp" }

// Begin starts to follow a control connection.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return &conversation{session: s, reserve: reserve, ends: ends.New(s, reserve, s.Remote.Addr())}
}

// conversation is one control connection.
type conversation struct {
	session helper.Session
	reserve helper.Reserve
	ends    *ends.Ends
	skip    [2]int  // bytes of a message that are still to come, by direction
	lost    [2]bool // a message began with something else, or in pieces too small: no later one can be found
}

// Done implements helper.Conversation: a call can begin at any time, as long as messages are found.
func (c *conversation) Done() bool { return c.lost[helper.Outbound] && c.lost[helper.Inbound] }

// Rewrite implements helper.Conversation.
func (c *conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	var out []byte // a copy with other identifiers
	next := min(c.skip[d], len(payload))
	c.skip[d] -= next
	for next < len(payload) && !c.lost[d] {
		m, ok := read(payload[next:])
		if !ok {
			c.lost[d] = true
			break
		}
		if at, id, ok := c.translate(d, m); ok && id != m.id(at) {
			if out == nil {
				out = bytes.Clone(payload)
			}
			binary.BigEndian.PutUint16(out[next+at:], id)
		}
		c.skip[d] = max(0, next+m.length-len(payload))
		next = min(next+m.length, len(payload))
	}
	if out == nil {
		return payload
	}
	return out
}

// translate returns the identifier that takes the place of the one a message has at an offset: of those the inside chose.
// Those of the remote stay: a packet of a call carries the identifier of its receiver alone (RFC 2637 §4.1).
func (c *conversation) translate(d helper.Direction, m message) (at int, id uint16, ok bool) {
	if d == helper.Inbound {
		at = m.peers()
	} else {
		at = m.own()
	}
	if at == 0 || m.id(at) == 0 {
		return at, 0, false
	}
	if d == helper.Outbound && m.begins() {
		id, ok = c.ends.Single(d, protoGRE, m.id(at))
	} else {
		id, ok = c.ends.Known(d, protoGRE, m.id(at))
	}
	if ok && m.connects() {
		c.connected(d, m, id)
	}
	return at, id, ok
}

// connected announces that the inside will send GRE to the identifier of the remote: nothing else tells of which call that is.
func (c *conversation) connected(d helper.Direction, m message, other uint16) {
	inside, remote := m.id(m.own()), m.id(m.peers())
	if d == helper.Inbound {
		inside, remote = other, inside
	}
	c.reserve(helper.Related{
		Proto:  protoGRE,
		Inside: netip.AddrPortFrom(c.session.Inside.Addr(), inside),
		Remote: netip.AddrPortFrom(c.session.Remote.Addr(), remote),
	})
}
