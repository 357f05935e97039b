// Package ends replaces the endpoints that the payloads of a conversation name: those of the inside by outside ones on the
// way out, and back on the way in.
package ends

import (
	"net/netip"

	"tapgw/helper"
)

// kept is how many endpoints of one conversation are remembered beside its own: many more than a client has streams.
const kept = 64

// Ends are the endpoints of one conversation.
type Ends struct {
	session helper.Session
	reserve helper.Reserve
	remote  netip.AddrPort // who may speak to what is reserved
	known   [kept]end
	next    int // of known, to be written over
}

// end is one port of the inside host, and what the outside sees of it.
type end struct {
	proto           uint8
	inside, outside uint16
}

// New returns the endpoints of a conversation that has named none. Remote is who may speak to them, the zero address for anyone.
func New(s helper.Session, reserve helper.Reserve, remote netip.Addr) *Ends {
	return &Ends{session: s, reserve: reserve, remote: netip.AddrPortFrom(remote, 0)}
}

// From is the address that payloads of a direction name, and To what it becomes.
func (e *Ends) From(d helper.Direction) netip.Addr {
	if d == helper.Inbound {
		return e.session.Outside.Addr()
	}
	return e.session.Inside.Addr()
}

// To is the address that takes the place of From.
func (e *Ends) To(d helper.Direction) netip.Addr { return e.From(1 - d) }

// Own is the other side's number of a port of the conversation's own protocol: known for the port of the conversation itself,
// reserved for another of the inside.
func (e *Ends) Own(d helper.Direction, port uint16) (uint16, bool) {
	inside, outside := e.session.Inside.Port(), e.session.Outside.Port()
	switch {
	case d == helper.Outbound && port == inside:
		return outside, true
	case d == helper.Inbound && port == outside:
		return inside, true
	}
	return e.Single(d, e.session.Proto, port)
}

// Single is the other side's number of a port, reserved when it is one of the inside that was not named before.
func (e *Ends) Single(d helper.Direction, proto uint8, port uint16) (uint16, bool) {
	return e.find(d, proto, port, false)
}

// Pair is Single for a port and the one above it, which become a port of the same parity and the one above that.
func (e *Ends) Pair(d helper.Direction, proto uint8, port uint16) (uint16, bool) {
	return e.find(d, proto, port, port+1 != 0)
}

func (e *Ends) find(d helper.Direction, proto uint8, port uint16, pair bool) (uint16, bool) {
	if d == helper.Outbound { // asked for each time, or it would be forgotten while it is still named
		return e.announce(proto, port, pair)
	}
	return e.Known(d, proto, port)
}

// Known is the other side's number of a port that was named before.
func (e *Ends) Known(d helper.Direction, proto uint8, port uint16) (uint16, bool) {
	for _, k := range e.known {
		switch {
		case k.proto != proto || k == end{}:
		case d == helper.Outbound && k.inside == port:
			return k.outside, true
		case d == helper.Inbound && k.outside == port:
			return k.inside, true
		}
	}
	return 0, false
}

// announce reserves a port of the inside at the address that the conversation itself has outside.
func (e *Ends) announce(proto uint8, port uint16, pair bool) (uint16, bool) {
	inside := netip.AddrPortFrom(e.session.Inside.Addr(), port)
	outside, ok := e.reserve(helper.Related{Proto: proto, Inside: inside, Remote: e.remote, Pair: pair})
	if !ok || outside.Addr() != e.session.Outside.Addr() {
		return 0, false
	}
	e.keep(end{proto, port, outside.Port()})
	if pair {
		e.keep(end{proto, port + 1, outside.Port() + 1})
	}
	return outside.Port(), true
}

func (e *Ends) keep(n end) {
	for i := range e.known {
		if e.known[i].proto == n.proto && e.known[i].outside == n.outside {
			e.known[i] = n
			return
		}
	}
	e.known[e.next] = n
	e.next = (e.next + 1) % kept
}
