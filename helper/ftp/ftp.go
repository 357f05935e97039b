// Package ftp helps FTP (RFC 959, RFC 2428): the data connections of active transfers come to a port that PORT and EPRT
// tell, and passive ones, that 227 and 229 announce, go by the uplink of the control session.
package ftp

import (
	"bytes"
	"net/netip"

	"tapgw/helper"
)

const (
	protoTCP = 6
	maxLine  = 512 // of a command or reply that is read, bytes
)

// Helper helps FTP.
type Helper struct{}

// Name is ftp.
func (Helper) Name() string { return "ftp" }

// Begin starts to follow a control session.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return &conversation{session: s, reserve: reserve}
}

// conversation is one control session. Commands are changed only when they lie in one piece: a part that has gone cannot be
// called back, and clients write a command at once.
type conversation struct {
	session helper.Session
	reserve helper.Reserve
	partial [2][]byte // by direction: the line so far that the last piece ended in, at most maxLine bytes of it
	secret  bool      // TLS has begun (RFC 4217), all is unreadable
}

// Done reports that the control session has turned to TLS.
func (c *conversation) Done() bool { return c.secret }

// Rewrite reads the lines that end in a payload.
func (c *conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	var out []byte // what goes on instead, up to from
	from := 0
	for at := 0; at < len(payload) && !c.secret; {
		end := bytes.IndexByte(payload[at:], '\n')
		if end < 0 {
			c.keep(d, payload[at:])
			break
		}
		whole := len(c.partial[d]) == 0
		c.keep(d, payload[at:at+end+1])
		line := c.partial[d]
		if text, changed := c.line(d, line); changed && whole {
			out = append(append(out, payload[from:at]...), text...)
			from = at + end + 1
		}
		c.partial[d], at = line[:0], at+end+1
	}
	if from == 0 {
		return payload
	}
	return append(out, payload[from:]...)
}

// keep adds to a line as much as is ever looked at.
func (c *conversation) keep(d helper.Direction, piece []byte) {
	room := maxLine - len(c.partial[d])
	c.partial[d] = append(c.partial[d], piece[:min(room, len(piece))]...)
}

// line reads a command or reply, and returns the one to send instead. A line longer than maxLine has lost its end.
func (c *conversation) line(d helper.Direction, line []byte) (instead []byte, changed bool) {
	text, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok {
		return nil, false
	}
	text = bytes.TrimSuffix(text, []byte("\r"))
	tail := line[len(text):]
	if d == helper.Inbound {
		c.reply(text)
		return nil, false
	}
	instead, changed = c.command(text)
	return append(instead, tail...), changed
}

// reply reads what the server says.
func (c *conversation) reply(text []byte) {
	if len(text) < 4 || text[3] != ' ' {
		return
	}
	var to netip.AddrPort
	ok := false
	switch server := c.session.Remote.Addr(); string(text[:3]) {
	case "227":
		to, ok = parseSix(fromDigit(text[4:]))
		ok = ok && to.Addr() == server // else the data would go to whom the server likes
	case "229":
		to, ok = parseExtendedPort(text[4:], server)
	case "234":
		c.secret = true
	}
	if ok {
		c.reserve(helper.Related{Proto: protoTCP, Inside: netip.AddrPortFrom(c.session.Inside.Addr(), 0), Remote: to})
	}
}

// command reads what the client asks, and returns a command that names an outside endpoint instead of its own.
func (c *conversation) command(text []byte) (instead []byte, changed bool) {
	verb, rest, _ := bytes.Cut(text, []byte(" "))
	var inside netip.AddrPort
	ok := false
	format := formatSix
	switch {
	case bytes.EqualFold(verb, []byte("PORT")):
		inside, ok = parseSix(bytes.TrimLeft(rest, " "))
	case bytes.EqualFold(verb, []byte("EPRT")):
		rest = bytes.TrimLeft(rest, " ")
		inside, ok = parseExtended(rest)
		format = func(a netip.AddrPort) []byte { return formatExtended(a, rest[0]) }
	}
	if !ok || inside.Addr() != c.session.Inside.Addr() { // the bounce attack (RFC 2577 §3)
		return nil, false
	}
	server := netip.AddrPortFrom(c.session.Remote.Addr(), 0)
	outside, ok := c.reserve(helper.Related{Proto: protoTCP, Inside: inside, Remote: server})
	if !ok {
		return nil, false
	}
	return append(append(bytes.Clone(verb), ' '), format(outside)...), true
}
