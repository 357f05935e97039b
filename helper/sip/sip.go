// Package sip rewrites SIP (RFC 3261) over UDP and TCP: the addresses at which the inside says it can be reached, in Via,
// Contact, the request line and the session description (RFC 4566), whose media get ports of their own on the uplink of the
// signalling. From, To, Call-ID and everything else stay as they are.
//
// A message on TCP is rewritten when a segment holds all of it; media with several port pairs in one line are left alone.
package sip

import (
	"bytes"
	"net/netip"
	"strconv"

	"tapgw/helper"
	"tapgw/helper/internal/ends"
	"tapgw/helper/internal/text"
	"tapgw/internal/packet"
)

// Helper helps SIP.
type Helper struct{}

// Name is sip.
func (Helper) Name() string { return "sip" }

// Begin starts to follow the SIP between two endpoints.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return &conversation{ends: ends.New(s, reserve, netip.Addr{}), stream: s.Proto == packet.ProtoTCP}
}

// conversation is the SIP between two endpoints: any number of dialogs.
type conversation struct {
	ends    *ends.Ends
	stream  bool
	opening text.Opening // of a stream
}

// Rewrite implements helper.Conversation.
func (c *conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	first := text.Blank(payload, 0) // lines that are empty say nothing yet
	if c.stream && first < len(payload) && !c.opening.Read(d, payload[first:], begins) {
		return payload
	}
	return rewrite(payload, c.ends, d, c.stream)
}

// begins reports whether a connection could begin with a payload.
func begins(payload []byte) bool {
	line, _, ok := text.Line(payload, 0)
	return ok && isMessage(line.Of(payload))
}

// Done implements helper.Conversation: where SIP is spoken the next call may begin at any time.
func (c *conversation) Done() bool { return c.opening.Foreign() }

// maxMessages bounds the messages that one segment of a TCP connection can hold.
const maxMessages = 16

// rewriter rewrites one payload.
type rewriter struct {
	b     []byte
	ends  *ends.Ends
	to    helper.Direction
	edits text.Edits
}

// rewrite returns the payload with the endpoints of one side in place of those of the other: b itself when it names none.
// stream says that several messages may follow each other, each of which must be whole.
func rewrite(b []byte, e *ends.Ends, to helper.Direction, stream bool) []byte {
	r := rewriter{b: b, ends: e, to: to}
	for next, n := text.Blank(b, 0), 0; next < len(b) && n < maxMessages; n++ {
		m, ok := text.Read(b, next)
		if !ok || !isMessage(m.Start.Of(b)) {
			break
		}
		length, given := r.contentLength(&m)
		if given && length > m.Body.End-m.Body.First || stream && !given {
			break
		}
		if given {
			m.Body.End = m.Body.First + length
		}
		r.message(&m)
		if next = text.Blank(b, m.Body.End); !stream {
			break
		}
	}
	return r.edits.Apply(b)
}

const version = "SIP/2.0"

// isMessage reports whether a start line is one of SIP: "METHOD uri SIP/2.0" or "SIP/2.0 status reason".
func isMessage(line []byte) bool {
	return bytes.HasPrefix(line, []byte(version+" ")) || bytes.HasSuffix(line, []byte(" "+version))
}

// contentLength is the header of that name; not given where it is missing or none.
func (r *rewriter) contentLength(m *text.Message) (n int, given bool) {
	h, ok := m.Find(r.b, "Content-Length", "l")
	if !ok {
		return 0, false
	}
	length, ok := text.Number(r.b, h.Value, 1<<16)
	return int(length), ok
}

// message rewrites one message whose body ends where it should.
func (r *rewriter) message(m *text.Message) {
	r.requestLine(m.Start)
	for _, h := range m.Headers {
		switch {
		case h.Is(r.b, "Via", "v"):
			text.Split(r.b, h.Value, ',', r.via)
		case h.Is(r.b, "Contact", "m"):
			text.Split(r.b, h.Value, ',', r.contact)
		}
	}
	if kind, ok := m.Find(r.b, "Content-Type", "c"); ok && isDescription(kind.Value.Of(r.b)) {
		r.description(m.Body)
	}
	r.fixLength(m)
}

// isDescription reports whether a Content-Type is that of a session description.
func isDescription(kind []byte) bool {
	kind, _, _ = bytes.Cut(kind, []byte{';'})
	return bytes.EqualFold(bytes.TrimSpace(kind), []byte("application/sdp"))
}

// fixLength makes Content-Length that of the new body.
func (r *rewriter) fixLength(m *text.Message) {
	grown := r.edits.Growth(m.Body)
	if h, ok := m.Find(r.b, "Content-Length", "l"); ok && grown != 0 {
		r.edits.Replace(r.b, h.Value, strconv.Itoa(m.Body.End-m.Body.First+grown))
	}
}

// requestLine restores the address that a request from outside is for: what we made of a Contact.
func (r *rewriter) requestLine(line text.Span) {
	if r.to == helper.Outbound || bytes.HasPrefix(line.Of(r.b), []byte(version)) {
		return
	}
	_, rest, _ := text.Cut(r.b, line, ' ')
	if uri, _, ok := text.Cut(r.b, rest, ' '); ok {
		r.uri(uri)
	}
}

// via rewrites the sent-by of one "SIP/2.0/UDP host:port;parameters". The parameters received and rport are the other side's
// (RFC 3581).
func (r *rewriter) via(element text.Span) {
	protocol := element
	for range 2 {
		_, rest, ok := text.Cut(r.b, protocol, '/')
		if !ok {
			return
		}
		protocol = rest
	}
	at := bytes.IndexFunc(protocol.Of(r.b), func(c rune) bool { return c < 0x80 && text.IsSpace(byte(c)) })
	if at < 0 {
		return
	}
	sentBy, _, _ := text.Cut(r.b, text.Span{First: protocol.First + at, End: element.End}, ';')
	r.endpoint(sentBy, defaultPort)
}

// contact rewrites the URI of one contact, in angle brackets or bare; "*" is none.
func (r *rewriter) contact(element text.Span) {
	open := -1
	quoted := false
	for i := element.First; i < element.End && open < 0; i++ {
		switch c := r.b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			open = i + 1
		}
	}
	if open < 0 {
		uri, _, _ := text.Cut(r.b, element, ';')
		r.uri(uri)
		return
	}
	if uri, _, ok := text.Cut(r.b, text.Span{First: open, End: element.End}, '>'); ok {
		r.uri(uri)
	}
}

// Ports where none is named (RFC 3261 §19.1.2).
const (
	defaultPort = 5060
	securePort  = 5061 // of "sips:"
)

// uri rewrites the host and port of a "sip:user@host:port;parameters?headers".
func (r *rewriter) uri(s text.Span) {
	scheme, rest, ok := text.Cut(r.b, s, ':')
	if !ok {
		return
	}
	port := uint16(defaultPort)
	switch {
	case bytes.EqualFold(scheme.Of(r.b), []byte("sips")):
		port = securePort
	case !bytes.EqualFold(scheme.Of(r.b), []byte("sip")):
		return
	}
	if _, host, ok := text.Cut(r.b, rest, '@'); ok {
		rest = host
	}
	if n := bytes.IndexAny(rest.Of(r.b), ";?"); n >= 0 {
		rest.End = rest.First + n
	}
	r.endpoint(rest.Trim(r.b), port)
}

// endpoint rewrites "host:port" or "host", where the default port is meant; IPv6 stands in brackets.
func (r *rewriter) endpoint(s text.Span, port uint16) {
	host, number, given := text.Endpoint(r.b, s)
	if !r.isOurs(host) {
		return
	}
	if given {
		p, ok := text.Port(r.b, number)
		if !ok {
			return
		}
		port = p
	}
	other, ok := r.ends.Own(r.to, port)
	if !ok {
		return
	}
	r.edits.Replace(r.b, s, netip.AddrPortFrom(r.ends.To(r.to), other).String())
}

// isOurs reports whether a span is the address that is translated in this direction.
func (r *rewriter) isOurs(s text.Span) bool { return text.IsAddress(r.b, s, r.ends.From(r.to)) }
