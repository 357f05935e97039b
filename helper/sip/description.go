package sip

import (
	"bytes"
	"strconv"

	"tapgw/helper/internal/text"
	"tapgw/internal/packet"
)

// media is one "m=" line of a session description and what belongs to it, or what holds for all media.
type media struct {
	at     text.Span // the port in the "m=" line
	port   uint16    // 0 when it is not for us
	other  uint16    // what it becomes
	own    bool      // a "c=" line holds for this media alone
	hosts  []text.Span
	rtcp   text.Span // port of "a=rtcp:", empty when there is none
	rtcpAt text.Span // address there, empty when there is none
}

// maxMedia bounds the media of one description.
const maxMedia = 16

// description rewrites the ports of the media that the translated host receives, and the addresses that hold for them. One
// address for all media becomes another only if each of them gets its ports.
func (r *rewriter) description(body text.Span) {
	session, list := r.readDescription(body)
	whole := true
	for i := range list {
		m := &list[i]
		if m.port == 0 || len(m.hosts) == 0 && (m.own || len(session.hosts) == 0) {
			continue
		}
		var ok bool
		if m.other, ok = r.ends.Pair(r.to, packet.ProtoUDP, m.port); !ok && !m.own {
			whole = false
		}
	}
	if whole {
		r.replaceAll(session.hosts)
	}
	for i := range list {
		if m := &list[i]; m.other != 0 && (m.own || whole) {
			r.edits.Replace(r.b, m.at, strconv.Itoa(int(m.other)))
			r.replaceAll(m.hosts)
			r.control(m)
		}
	}
}

func (r *rewriter) replaceAll(addresses []text.Span) {
	for _, a := range addresses {
		r.edits.Replace(r.b, a, r.ends.To(r.to).String())
	}
}

// control rewrites where RTCP goes when that is said (RFC 3605): elsewhere it is right above RTP (RFC 3550 §11).
func (r *rewriter) control(m *media) {
	port, ok := text.Port(r.b, m.rtcp)
	if !ok || m.rtcpAt != (text.Span{}) && !r.isOurs(m.rtcpAt) {
		return
	}
	other := m.other
	switch port {
	case m.port:
	case m.port + 1:
		other++
	default:
		if other, ok = r.ends.Single(r.to, packet.ProtoUDP, port); !ok {
			return
		}
	}
	r.edits.Replace(r.b, m.rtcp, strconv.Itoa(int(other)))
	if m.rtcpAt != (text.Span{}) {
		r.replaceAll([]text.Span{m.rtcpAt})
	}
}

// readDescription finds what the session says for all media, and the media.
func (r *rewriter) readDescription(body text.Span) (session media, list []media) {
	at := &session
	for next := body.First; next < body.End; {
		line, after, ok := text.Line(r.b[:body.End], next)
		if !ok {
			line, after = text.Span{First: next, End: body.End}, body.End
		}
		next = after
		value := text.Span{First: min(line.First+2, line.End), End: line.End}
		switch {
		case bytes.HasPrefix(line.Of(r.b), []byte("m=")):
			if len(list) == maxMedia {
				return session, list
			}
			list = append(list, r.mediaLine(value))
			at = &list[len(list)-1]
		case bytes.HasPrefix(line.Of(r.b), []byte("c=")):
			r.connection(at, value)
		case bytes.HasPrefix(line.Of(r.b), []byte("a=rtcp:")):
			r.controlLine(at, text.Span{First: line.First + len("a=rtcp:"), End: line.End})
		}
	}
	return session, list
}

// mediaLine reads "audio 49170 RTP/AVP 0". Media over TCP have no port of ours, and port 0 means that they are refused.
func (r *rewriter) mediaLine(value text.Span) (m media) {
	_, rest, _ := text.Cut(r.b, value, ' ')
	port, rest, _ := text.Cut(r.b, rest, ' ')
	protocol, _, _ := text.Cut(r.b, rest, ' ')
	if bytes.Contains(bytes.ToUpper(protocol.Of(r.b)), []byte("TCP")) {
		return m
	}
	m.at = port
	m.port, _ = text.Port(r.b, port)
	return m
}

// connection reads "IN IP4 192.0.2.1"; with a TTL behind it the address is a group's.
func (r *rewriter) connection(m *media, value text.Span) {
	m.own = true
	if address := r.address(value); r.isOurs(address) && len(m.hosts) < maxMedia {
		m.hosts = append(m.hosts, address)
	}
}

// address is that of "IN IP4 192.0.2.1" or "IN IP6 2001:db8::1", empty where another network is named.
func (r *rewriter) address(value text.Span) text.Span {
	network, rest, _ := text.Cut(r.b, value, ' ')
	family, address, _ := text.Cut(r.b, rest, ' ')
	own := "IP4"
	if r.ends.From(r.to).Is6() {
		own = "IP6"
	}
	if string(network.Of(r.b)) != "IN" || string(family.Of(r.b)) != own {
		return text.Span{}
	}
	return address
}

// controlLine reads "49171" or "49171 IN IP4 192.0.2.1".
func (r *rewriter) controlLine(m *media, value text.Span) {
	port, rest, more := text.Cut(r.b, value, ' ')
	m.rtcp = port
	if more {
		if m.rtcpAt = r.address(rest); m.rtcpAt == (text.Span{}) {
			m.rtcp = text.Span{}
		}
	}
}
