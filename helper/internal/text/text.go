// Package text reads and edits protocols of lines in place: messages that have a start line, headers as in RFC 822 and a body
// (SIP, RTSP), and lines that stand alone. All that it reads is hostile.
package text

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"strconv"
)

// Span is a piece of a payload: from First up to but without End.
type Span struct{ First, End int }

// Of returns the bytes of the span.
func (s Span) Of(b []byte) []byte { return b[s.First:s.End] }

// Trim takes spaces, tabs and line ends off both sides.
func (s Span) Trim(b []byte) Span {
	for s.First < s.End && IsSpace(b[s.First]) {
		s.First++
	}
	for s.End > s.First && IsSpace(b[s.End-1]) {
		s.End--
	}
	return s
}

// IsSpace reports whether c may stand between two words of a header, which can be folded.
func IsSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// Header is one header of a message. The value has no white space around it, but may be folded.
type Header struct{ Name, Value Span }

// Is reports whether the header has one of the names, in any case.
func (h Header) Is(b []byte, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return bytes.EqualFold(h.Name.Of(b), []byte(n)) })
}

// Message is where the parts of a message lie in a payload.
type Message struct {
	Start   Span // line, without its end
	Headers []Header
	Body    Span // all that follows the headers; the caller knows how long it is
}

// maxHeaders is far more than any message has.
const maxHeaders = 128

// Read finds the message that begins at offset first of b; false when its headers do not end there, or are none.
func Read(b []byte, first int) (m Message, ok bool) {
	var next int
	if m.Start, next, ok = Line(b, first); !ok || m.Start.First == m.Start.End {
		return m, false
	}
	for len(m.Headers) < maxHeaders {
		line, after, ok := Line(b, next)
		if !ok {
			return m, false
		}
		next = after
		if line.First == line.End {
			m.Body = Span{next, len(b)}
			return m, true
		}
		for next < len(b) && (b[next] == ' ' || b[next] == '\t') { // folded (RFC 3261 §7.3.1)
			folded, after, ok := Line(b, next)
			if !ok {
				return m, false
			}
			line.End, next = folded.End, after
		}
		colon := bytes.IndexByte(line.Of(b), ':')
		if colon < 0 {
			return m, false
		}
		name, value := Span{line.First, line.First + colon}, Span{line.First + colon + 1, line.End}
		m.Headers = append(m.Headers, Header{name.Trim(b), value.Trim(b)})
	}
	return m, false
}

// Blank is where the empty lines that begin at offset first end: they may stand between messages (RFC 3261 §7.5).
func Blank(b []byte, first int) int {
	for first < len(b) && (b[first] == '\r' || b[first] == '\n') {
		first++
	}
	return first
}

// Line is the line that begins at offset first, without its LF or CRLF, and where the next begins; false when it has no end.
func Line(b []byte, first int) (line Span, next int, ok bool) {
	n := bytes.IndexByte(b[first:], '\n')
	if n < 0 {
		return Span{}, first, false
	}
	line, next = Span{first, first + n}, first+n+1
	if n > 0 && b[line.End-1] == '\r' {
		line.End--
	}
	return line, next, true
}

// Find returns the first header of one of the names.
func (m *Message) Find(b []byte, names ...string) (Header, bool) {
	for _, h := range m.Headers {
		if h.Is(b, names...) {
			return h, true
		}
	}
	return Header{}, false
}

// Split calls yield with the parts of s between separators that stand in no quotes and no angle brackets, without white space
// around them.
func Split(b []byte, s Span, separator byte, yield func(Span)) {
	first, quoted, bracket := s.First, false, false
	for i := s.First; i < s.End; i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !bracket:
			quoted = !quoted
		case quoted:
		case c == '<':
			bracket = true
		case c == '>':
			bracket = false
		case c == separator && !bracket:
			yield(Span{first, i}.Trim(b))
			first = i + 1
		}
	}
	yield(Span{min(first, s.End), s.End}.Trim(b))
}

// Cut is the span before the first separator and the one after it, both without white space around them.
func Cut(b []byte, s Span, separator byte) (before, after Span, ok bool) {
	at := bytes.IndexByte(s.Of(b), separator)
	if at < 0 {
		return s.Trim(b), Span{s.End, s.End}, false
	}
	return Span{s.First, s.First + at}.Trim(b), Span{s.First + at + 1, s.End}.Trim(b), true
}

// Endpoint divides "host:port" or "host" (RFC 3986 §3.2); the brackets around an IPv6 address are no part of the host, which is
// empty where they are not closed.
func Endpoint(b []byte, s Span) (host, port Span, given bool) {
	if s.First == s.End || b[s.First] != '[' {
		return Cut(b, s, ':')
	}
	host, rest, ok := Cut(b, Span{First: s.First + 1, End: s.End}, ']')
	if ok && rest.First == rest.End {
		return host, rest, false
	}
	if !ok || b[rest.First] != ':' {
		return Span{}, Span{}, false
	}
	return host, Span{rest.First + 1, rest.End}.Trim(b), true
}

// Number reads a span that is a decimal number below limit; a sign is none.
func Number(b []byte, s Span, limit uint64) (uint64, bool) {
	const longest = 20 // digits of a uint64
	digits := s.Of(b)
	if len(digits) == 0 || len(digits) > longest || digits[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, err == nil && n < limit
}

// Port reads a span that is a port, not 0.
func Port(b []byte, s Span) (uint16, bool) {
	n, ok := Number(b, s, math.MaxUint16+1)
	return uint16(n), ok && n != 0
}

// IsAddress reports whether a span is the address a.
func IsAddress(b []byte, s Span, a netip.Addr) bool {
	const longest = 39 // of an IPv6 address
	if n := s.End - s.First; n == 0 || n > longest {
		return false
	}
	parsed, err := netip.ParseAddr(string(s.Of(b)))
	return err == nil && parsed == a
}
