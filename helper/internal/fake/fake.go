// Package fake stands for the gateway in the tests of helpers.
package fake

import (
	"bytes"
	"net/netip"
	"testing"

	"tapgw/helper"
	"tapgw/helper/internal/text"
)

// Gateway answers the announcements of one conversation.
type Gateway struct {
	helper.Session
	Announced []helper.Related // all that were granted, once each
	given     []netip.AddrPort // what they got
}

// New returns a gateway before which a client at inside speaks to remote by outside.
func New(proto uint8, inside, outside, remote string) *Gateway {
	return &Gateway{Session: helper.Session{
		Proto: proto, Inside: netip.MustParseAddrPort(inside), Outside: netip.MustParseAddrPort(outside),
		Remote: netip.MustParseAddrPort(remote),
	}}
}

// maxAnnounced is how many announcements are granted.
const maxAnnounced = 200

const protoGRE = 47

// Reserve is helper.Reserve: outside ports are those from 20000, a port apart where no pair is asked for.
func (g *Gateway) Reserve(r helper.Related) (outside netip.AddrPort, ok bool) {
	for i, a := range g.Announced {
		if a.Proto == r.Proto && a.Inside == r.Inside {
			return g.given[i], true
		}
	}
	if r.Inside.Addr() != g.Inside.Addr() || r.Inside.Port() < 1024 && r.Proto != protoGRE || len(g.Announced) == maxAnnounced {
		return outside, false
	}
	port := 20000 + uint16(len(g.Announced))*4 + r.Inside.Port()&1
	g.Announced = append(g.Announced, r)
	g.given = append(g.given, netip.AddrPortFrom(g.Outside.Addr(), port))
	return g.given[len(g.given)-1], true
}

// Direction is where a fuzzer sends a payload.
func Direction(outbound bool) helper.Direction {
	if outbound {
		return helper.Outbound
	}
	return helper.Inbound
}

// Rewrite gives a hostile payload to a conversation and returns what becomes of it: the payload must not be written to, the
// result not be longer than edits can make it, and a remote must announce nothing.
func (g *Gateway) Rewrite(t testing.TB, c helper.Conversation, d helper.Direction, in []byte) []byte {
	t.Helper()
	before, announced := bytes.Clone(in), len(g.Announced)
	out := c.Rewrite(d, in)
	if !bytes.Equal(in, before) {
		t.Errorf("%q was written to: %q", before, in)
	}
	if len(out) > len(in)+text.MaxEdits*text.MaxGrowth {
		t.Errorf("%q became %q", in, out)
	}
	if d == helper.Inbound && len(g.Announced) > announced {
		t.Errorf("a remote announced %v", g.Announced[announced:])
	}
	return out
}
