// Package rtsp rewrites RTSP (RFC 2326, RFC 7826): the UDP ports at which a client wants its streams, in the Transport headers
// of requests, and their echo in the server's answers. Streams in the control connection itself need no help.
//
// A message is rewritten when a segment holds all its headers.
package rtsp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"

	"tapgw/helper"
	"tapgw/helper/internal/ends"
	"tapgw/helper/internal/text"
	"tapgw/internal/packet"
)

// Helper helps RTSP.
type Helper struct{}

// Name is rtsp.
func (Helper) Name() string { return "rtsp" }

// Begin starts to follow one control connection.
func (Helper) Begin(s helper.Session, reserve helper.Reserve) helper.Conversation {
	return &conversation{ends: ends.New(s, reserve, netip.Addr{})}
}

// conversation is one control connection.
type conversation struct {
	ends     *ends.Ends
	skip     [2]int // bytes of a body or an interleaved frame that are still to come, by direction
	opening  text.Opening
	reserved bool // a stream got ports of its own
	inBand   bool // a stream comes in the connection itself
}

// Done implements helper.Conversation: a client that chose streams in the connection stays with them.
func (c *conversation) Done() bool { return c.opening.Foreign() || c.inBand && !c.reserved }

// begins reports whether a client of RTSP could begin with a payload.
func begins(payload []byte) bool {
	line, _, ok := text.Line(payload, 0)
	return ok && isMessage(line.Of(payload))
}

// Rewrite implements helper.Conversation.
func (c *conversation) Rewrite(d helper.Direction, payload []byte) []byte {
	if !c.opening.Read(d, payload, begins) {
		return payload
	}
	r := rewriter{conversation: c, b: payload, to: d}
	next := min(c.skip[d], len(payload))
	c.skip[d] -= next
	for next < len(payload) {
		if next = text.Blank(payload, next); next == len(payload) {
			break
		}
		length := r.part(next)
		if length == 0 {
			break
		}
		c.skip[d] = max(0, next+length-len(payload))
		next = min(next+length, len(payload))
	}
	return r.edits.Apply(payload)
}

// rewriter rewrites one payload.
type rewriter struct {
	*conversation
	b     []byte
	to    helper.Direction
	edits text.Edits
}

// part handles the message or interleaved frame at offset first and returns its length, 0 when it is neither.
func (r *rewriter) part(first int) int {
	const frameHeader = 4 // "$", channel, length (RFC 2326 §10.12)
	if rest := r.b[first:]; rest[0] == '$' && len(rest) >= frameHeader {
		r.inBand = true
		return frameHeader + int(binary.BigEndian.Uint16(rest[2:]))
	}
	m, ok := text.Read(r.b, first)
	if !ok || !isMessage(m.Start.Of(r.b)) {
		return 0
	}
	length := uint64(0)
	for _, h := range m.Headers {
		switch {
		case h.Is(r.b, "Content-Length"):
			if length, ok = text.Number(r.b, h.Value, 1<<30); !ok {
				return 0
			}
		case h.Is(r.b, "Transport"):
			text.Split(r.b, h.Value, ',', r.transport)
		}
	}
	return m.Body.First - first + int(length)
}

// isMessage reports whether a start line is one of RTSP: "METHOD uri RTSP/1.0" or "RTSP/1.0 status reason".
func isMessage(line []byte) bool {
	return bytes.HasPrefix(line, []byte("RTSP/")) || bytes.Contains(line, []byte(" RTSP/"))
}

// transport rewrites one way of transport, "RTP/AVP;unicast;client_port=4588-4589". Those over TCP and to groups name no port
// of the client.
func (r *rewriter) transport(spec text.Span) {
	unicast := true
	text.Split(r.b, spec, ';', func(p text.Span) {
		upper := bytes.ToUpper(p.Of(r.b))
		if bytes.HasSuffix(upper, []byte("/TCP")) || bytes.Equal(upper, []byte("MULTICAST")) {
			unicast = false
		}
	})
	if !unicast {
		return
	}
	text.Split(r.b, spec, ';', func(p text.Span) {
		name, value, ok := text.Cut(r.b, p, '=')
		switch {
		case !ok:
		case is(r.b, name, "client_port"):
			r.ports(value)
		case is(r.b, name, "destination"):
			r.host(value)
		case is(r.b, name, "dest_addr"):
			r.addresses(value)
		}
	})
}

func is(b []byte, s text.Span, name string) bool { return bytes.EqualFold(s.Of(b), []byte(name)) }

// ports rewrites "4588-4589", RTP and RTCP, or the port of one of them.
func (r *rewriter) ports(value text.Span) {
	low, high, both := text.Cut(r.b, value, '-')
	first, ok := text.Port(r.b, low)
	if !ok {
		return
	}
	if !both {
		r.one(low, first)
		return
	}
	if second, ok := text.Port(r.b, high); !ok || second != first+1 {
		return
	}
	if other, ok := r.ends.Pair(r.to, packet.ProtoUDP, first); ok {
		r.reserved = true
		r.edits.Replace(r.b, low, strconv.Itoa(int(other)))
		r.edits.Replace(r.b, high, strconv.Itoa(int(other)+1))
	}
}

// one rewrites a port that stands alone.
func (r *rewriter) one(at text.Span, port uint16) {
	if other, ok := r.ends.Single(r.to, packet.ProtoUDP, port); ok {
		r.reserved = true
		r.edits.Replace(r.b, at, strconv.Itoa(int(other)))
	}
}

// host rewrites an address that is the one of the side that is translated.
func (r *rewriter) host(s text.Span) {
	if text.IsAddress(r.b, s, r.ends.From(r.to)) {
		r.edits.Replace(r.b, s, r.ends.To(r.to).String())
	}
}

// addresses rewrites `"192.0.2.1:4588"/":4589"` (RFC 7826 §18.54): RTP and RTCP, each with an address or for the one that asks.
func (r *rewriter) addresses(value text.Span) {
	var hosts, ports [2]text.Span
	var numbers [2]uint16
	n := 0
	text.Split(r.b, value, '/', func(s text.Span) {
		if n < len(ports) && s.End-s.First > 2 && r.b[s.First] == '"' && r.b[s.End-1] == '"' {
			hosts[n], ports[n], _ = text.Endpoint(r.b, text.Span{First: s.First + 1, End: s.End - 1})
			numbers[n], _ = text.Port(r.b, ports[n])
		}
		n++
	})
	for i := range hosts[:min(n, 2)] {
		if numbers[i] == 0 || hosts[i].First != hosts[i].End && !text.IsAddress(r.b, hosts[i], r.ends.From(r.to)) {
			return
		}
	}
	switch {
	case n == 1:
		r.one(ports[0], numbers[0])
	case n == 2 && numbers[1] == numbers[0]+1:
		other, ok := r.ends.Pair(r.to, packet.ProtoUDP, numbers[0])
		if !ok {
			return
		}
		r.reserved = true
		r.edits.Replace(r.b, ports[0], strconv.Itoa(int(other)))
		r.edits.Replace(r.b, ports[1], strconv.Itoa(int(other)+1))
	default:
		return
	}
	r.host(hosts[0])
	r.host(hosts[1])
}
