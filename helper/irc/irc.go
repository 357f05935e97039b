// Package irc rewrites the offers of direct connections (DCC) that clients of IRC send each other: the address and port at
// which the inside listens, and the port by which both speak of a file to be resumed. Everything else of IRC (RFC 2812) stays.
//
// An offer is rewritten when a segment holds it up to the end of its line or of the CTCP message it is.
package irc

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"tapgw/helper"
	"tapgw/helper/internal/ends"
	"tapgw/helper/internal/text"
	"tapgw/internal/packet"
)

// Helper helps IRC.
type Helper struct{}

// Name is irc.
func (Helper) Name() string { return "irc" }

// Begin starts to follow one connection to a server.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return &conversation{ends: ends.New(s, reserve, netip.Addr{})}
}

// conversation is one connection to a server.
type conversation struct {
	ends    *ends.Ends
	opening text.Opening
}

// Done implements helper.Conversation: where IRC is spoken the next offer may come at any time.
func (c *conversation) Done() bool { return c.opening.Foreign() }

// first are the commands that a client begins with (RFC 2812 §3.1, IRCv3).
var first = []string{"CAP", "PASS", "NICK", "USER", "AUTHENTICATE", "WEBIRC"}

// begins reports whether a client of IRC could begin with a payload.
func begins(payload []byte) bool {
	command, _, ok := text.Cut(payload, text.Span{End: len(payload)}, ' ')
	return ok && slices.ContainsFunc(first, func(f string) bool { return bytes.EqualFold(command.Of(payload), []byte(f)) })
}

// Rewrite implements helper.Conversation.
func (c *conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	if !c.opening.Read(d, payload, begins) {
		return payload
	}
	r := rewriter{ends: c.ends, b: payload, to: d}
	for next := 0; next < len(payload); {
		line, after, ok := text.Line(payload, next)
		if !ok {
			break
		}
		r.line(line)
		next = after
	}
	return r.edits.Apply(payload)
}

// rewriter rewrites one payload.
type rewriter struct {
	ends  *ends.Ends
	b     []byte
	to    helper.Direction
	edits text.Edits
}

// line looks for CTCP in ":prefix PRIVMSG target :text", whose tags and prefix may be missing.
func (r *rewriter) line(s text.Span) {
	for s.First < s.End && (r.b[s.First] == '@' || r.b[s.First] == ':') {
		_, s, _ = text.Cut(r.b, s, ' ')
	}
	command, rest, _ := text.Cut(r.b, s, ' ')
	if !bytes.EqualFold(command.Of(r.b), []byte("PRIVMSG")) && !bytes.EqualFold(command.Of(r.b), []byte("NOTICE")) {
		return
	}
	if _, words, ok := text.Cut(r.b, rest, ' '); ok {
		r.messages(words)
	}
}

const delimiter = 1 // around CTCP messages

// messages rewrites the CTCP messages of a text, between delimiters; the last one may lack its end.
func (r *rewriter) messages(s text.Span) {
	for {
		_, rest, ok := text.Cut(r.b, s, delimiter)
		if !ok {
			return
		}
		message, after, _ := text.Cut(r.b, rest, delimiter)
		if kind, args, ok := text.Cut(r.b, message, ' '); ok && string(kind.Of(r.b)) == "DCC" {
			r.direct(args)
		}
		s = after
	}
}

// direct rewrites "SEND name address port size", "CHAT chat address port" and their like, and the port of "RESUME name port
// position" and "ACCEPT name port position".
func (r *rewriter) direct(args text.Span) {
	verb, rest, _ := text.Cut(r.b, args, ' ')
	fields := r.afterName(rest)
	address, more, _ := text.Cut(r.b, fields, ' ')
	switch string(bytes.ToUpper(verb.Of(r.b))) {
	case "RESUME":
		r.resumed(address, helper.Inbound)
	case "ACCEPT":
		r.resumed(address, helper.Outbound)
	default:
		port, _, _ := text.Cut(r.b, more, ' ')
		r.offer(address, port)
	}
}

// afterName is what follows a file's name, which stands in quotes when there are spaces in it.
func (r *rewriter) afterName(s text.Span) text.Span {
	if s.First < s.End && r.b[s.First] == '"' {
		_, rest, _ := text.Cut(r.b, text.Span{First: s.First + 1, End: s.End}, '"')
		return rest
	}
	_, rest, _ := text.Cut(r.b, s, ' ')
	return rest
}

// offer rewrites where the inside listens, at an IPv4 address as a number or an IPv6 address as it is written. Port 0 asks the
// other side to listen (reverse DCC), and stays. What names another address than the host's own is none of ours.
func (r *rewriter) offer(address, port text.Span) {
	if !r.isOurs(address) {
		return
	}
	if number, ok := text.Port(r.b, port); ok {
		other, ok := r.ends.Single(r.to, packet.ProtoTCP, number)
		if !ok {
			return
		}
		r.edits.Replace(r.b, port, strconv.Itoa(int(other)))
	} else if string(port.Of(r.b)) != "0" {
		return
	}
	r.edits.Replace(r.b, address, format(r.ends.To(r.to)))
}

// isOurs reports whether a field is the address that is translated in this direction.
func (r *rewriter) isOurs(address text.Span) bool {
	own := r.ends.From(r.to)
	if own.Is6() {
		return text.IsAddress(r.b, address, own)
	}
	host, ok := text.Number(r.b, address, math.MaxUint32+1)
	return ok && packet.IPv4(uint32(host)).Netip() == own
}

// resumed rewrites a port that the inside offered before. In the other direction it is one of the remote's.
func (r *rewriter) resumed(port text.Span, offered helper.Direction) {
	number, ok := text.Port(r.b, port)
	if !ok || r.to != offered {
		return
	}
	if other, ok := r.ends.Known(r.to, packet.ProtoTCP, number); ok {
		r.edits.Replace(r.b, port, strconv.Itoa(int(other)))
	}
}

// format is an address as DCC writes it.
func format(a netip.Addr) string {
	if a.Is6() {
		return a.String()
	}
	return strconv.FormatUint(uint64(packet.AddrOf(a).V4()), 10)
}
