package tapgw

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// callFrame is a packet of a PPTP call for the receiver's identifier.
func callFrame(t testing.TB, src, dst packet.Addr, id uint16, payload string) []byte {
	header := binary.BigEndian.AppendUint16([]byte{0x30, 0x81, 0x88, 0x0b, 0, byte(len(payload))}, id)
	return build(t, ip(src, dst, layers.IPProtocolGRE), gopacket.Payload(append(header, "\x00\x00\x00\x01"+payload...)))
}

// idOf is the identifier in a packet of a call.
func idOf(s *seen) uint16 { return binary.BigEndian.Uint16(s.data[packet.CallAt:]) }

// callFrom announces call 7 of an inside host, as the server knows it by an identifier, and returns what it is outside.
func (w *world) callFrom(host packet.Addr, id uint16) (control nat.Translation, outside netip.AddrPort) {
	w.t.Helper()
	w.expect(w.out(tcpFrame(w.t, host, 40000, server, 1723, packet.SYN, "")), Send, NoReason)
	control = w.table.Translation(w.table.FindOut(nat.Key{Inside: host, InsidePort: 40000, Remote: server, RemotePort: 1723, Proto: packet.ProtoTCP}))
	for _, remote := range []uint16{0, id} { // asked for, and answered
		var ok bool
		outside, ok = w.g.helpers.announceCall(&control, helper.Related{
			Proto: packet.ProtoGRE, Inside: netip.AddrPortFrom(host.Netip(), 7), Remote: netip.AddrPortFrom(server.Netip(), remote),
		}, start)
		if !ok {
			w.t.Fatalf("call 7 of %s is refused", host.Netip())
		}
	}
	return control, outside
}

// TestCalls: two clients have the same call identifier with the same server, and each gets its own packets.
func TestCalls(t *testing.T) {
	w := newWorld(t)
	seen := make(map[uint16]bool)
	for i, host := range []packet.Addr{inside, other} {
		_, outside := w.callFrom(host, uint16(100+i))
		seen[outside.Port()] = true
		for range 2 {
			b := callFrame(t, server, wan1, outside.Port(), "in")
			if s := w.delivered(w.in(b, 1), b); s.dst() != host || idOf(s) != 7 {
				t.Errorf("call %d of the server is call %d of %s", outside.Port(), idOf(s), s.dst().Netip())
			}
			b = callFrame(t, host, server, uint16(100+i), "out")
			if s := w.sent(w.out(b), b, 1); s.src() != wan1 || idOf(s) != uint16(100+i) {
				t.Errorf("a call leaves as %d of %s", idOf(s), s.src().Netip())
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("the server knows both by %v", seen)
	}
}

// TestCallsInPieces: the first fragment says which call the others are of.
func TestCallsInPieces(t *testing.T) {
	w := newWorld(t)
	_, outside := w.callFrom(inside, 100)
	pieces := cut(t, callFrame(t, server, wan1, outside.Port(), "a payload that is cut into pieces"), 24)
	for _, b := range pieces {
		if s := w.delivered(w.in(b, 1), b); s.dst() != inside {
			t.Errorf("a piece goes to %s", s.dst().Netip())
		}
	}
	if s := look(t, join(t, pieces)); idOf(s) != 7 {
		t.Errorf("became call %d", idOf(s))
	}
	for _, b := range cut(t, callFrame(t, inside, server, 100, "a payload that is cut into pieces"), 24) {
		if s := w.sent(w.out(b), b, 1); s.src() != wan1 {
			t.Errorf("a piece comes from %s", s.src().Netip())
		}
	}
}

// TestCallsOfOthers: what no control connection announced is told apart by its hosts alone, or not ours.
func TestCallsOfOthers(t *testing.T) {
	w := newWorld(t)
	_, outside := w.callFrom(inside, 100)
	b := callFrame(t, inside, server, 101, "another")
	if s := w.sent(w.out(b), b, 1); s.src() != wan1 || idOf(s) != 101 {
		t.Errorf("left as %d of %s", idOf(s), s.src().Netip())
	}
	b = callFrame(t, server, wan1, outside.Port()+1, "its answer")
	if s := w.delivered(w.in(b, 1), b); s.dst() != inside || idOf(s) != outside.Port()+1 {
		t.Errorf("call %d goes to %s as %d", outside.Port()+1, s.dst().Netip(), idOf(s))
	}
	w.expect(w.in(callFrame(t, router, wan1, outside.Port(), "a stranger"), 1), GiveBack, NoReason)
	w.expect(w.in(callFrame(t, server, wan2, outside.Port(), "another uplink"), 2), GiveBack, NoReason)
}

// TestCallsThatAreRefused: a control connection speaks for its own two hosts.
func TestCallsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	control, _ := w.callFrom(inside, 100)
	announce := func(host, remote packet.Addr) bool {
		_, ok := w.g.helpers.announceCall(&control, helper.Related{
			Proto: packet.ProtoGRE, Inside: netip.AddrPortFrom(host.Netip(), 8), Remote: netip.AddrPortFrom(remote.Netip(), 0),
		}, start)
		return ok
	}
	if announce(other, server) || announce(inside, router) || !announce(inside, server) {
		t.Error("a call of another host is announced, or its own is not")
	}
}

// TestCallsAreBounded: ended calls make room, and more than there is room for are not remembered.
func TestCallsAreBounded(t *testing.T) {
	w := newWorld(t)
	var c calls
	for i := range uint16(maxCalls + 10) {
		one := call{inside, server, i + 1}
		if i%2 == 0 {
			if _, err := w.table.Open(one.key(i+1), w.g.view.Load().binding(&w.ups[0], 0, 0, inside, server), start); err != nil {
				t.Fatal(err)
			}
		}
		c.learn(one, i+1, w.table)
	}
	live := 0
	for i := range uint16(maxCalls + 10) {
		if own, ok := c.find(call{inside, server, i + 1}); ok && own == i+1 {
			live++
		}
	}
	if live < maxCalls/2 || live > maxCalls/2+20 {
		t.Errorf("%d calls are known", live)
	}
}
