package tapgw

import (
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
)

var big = strings.Repeat("0123456789", 300) // three fragments of 1,480 bytes

// permutations are all orders of n things.
func permutations(n int) (list [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			q := append(append(append([]int(nil), p[:i]...), n-1), p[i:]...)
			list = append(list, q)
		}
	}
	return list
}

// carry hands fragments to one side of the gateway in an order, and returns all that went on with the last verdict.
func (w *world) carry(fragments [][]byte, order []int, handle func([]byte) Result) (passed [][]byte, last Result) {
	w.t.Helper()
	for _, i := range order {
		b := clone(fragments[i])
		res := handle(b)
		if res.Verdict != Hold && res.Verdict != Drop {
			passed, last = append(append(passed, b), res.Released...), res
		}
	}
	return passed, last
}

// TestFragmentsInAnyOrder is RFC 4787 REQ-14 both ways, for each protocol.
func TestFragmentsInAnyOrder(t *testing.T) {
	for name, frame := range map[string]func(src, dst packet.Addr, port uint16, reply bool) []byte{
		"udp": func(src, dst packet.Addr, port uint16, reply bool) []byte {
			if reply {
				return udpFrame(t, src, 53, dst, port, big)
			}
			return udpFrame(t, src, port, dst, 53, big)
		},
		"tcp": func(src, dst packet.Addr, port uint16, reply bool) []byte {
			if reply {
				return tcpFrame(t, src, 80, dst, port, packet.SYN|packet.ACK, big)
			}
			return tcpFrame(t, src, port, dst, 80, packet.SYN, big)
		},
		"icmp": func(src, dst packet.Addr, id uint16, reply bool) []byte {
			if reply {
				return echoFrame(t, src, dst, packet.ICMPEchoReply, id, big)
			}
			return echoFrame(t, src, dst, packet.ICMPEcho, id, big)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range permutations(3) {
				w := newWorld(t)
				out := cut(t, frame(inside, server, 4000, false), 1480)
				passed, res := w.carry(out, order, w.out)
				if len(passed) != 3 || res.Verdict != Send || res.Uplink != 1 {
					t.Fatalf("%v: %d fragments sent, %+v", order, len(passed), res)
				}
				s := look(t, join(t, passed))
				if s.src() != wan1 || s.dst() != server || !strings.HasSuffix(string(s.data), big) {
					t.Fatalf("%v: %v", order, s.ip)
				}
				outside := outsidePort(s)
				back := cut(t, frame(server, wan1, outside, true), 1480)
				passed, res = w.carry(back, order, func(b []byte) Result { return w.in(b, 1) })
				if len(passed) != 3 || res.Verdict != Deliver {
					t.Fatalf("%v: %d fragments delivered, %+v", order, len(passed), res)
				}
				if s = look(t, join(t, passed)); s.dst() != inside || s.src() != server || insidePort(s) != 4000 {
					t.Fatalf("%v: %v", order, s.ip)
				}
			}
		})
	}
}

// outsidePort is the source port or identifier of what was sent, insidePort the destination's of what was delivered.
func outsidePort(s *seen) uint16 {
	switch {
	case s.tcp != nil:
		return uint16(s.tcp.SrcPort)
	case s.udp != nil:
		return uint16(s.udp.SrcPort)
	}
	return s.icmp.Id
}

func insidePort(s *seen) uint16 {
	switch {
	case s.tcp != nil:
		return uint16(s.tcp.DstPort)
	case s.udp != nil:
		return uint16(s.udp.DstPort)
	}
	return s.icmp.Id
}

// TestForeignFragmentsAreGivenBack, in any order: requests to the host and what no session expects.
func TestForeignFragmentsAreGivenBack(t *testing.T) {
	for name, frame := range map[string][]byte{
		"udp":         udpFrame(t, server, 5000, wan1, 5001, big),
		"echo":        echoFrame(t, server, wan1, packet.ICMPEcho, 9, big),
		"echo reply":  echoFrame(t, server, wan1, packet.ICMPEchoReply, 9, big),
		"error":       errorFrame(t, server, wan1, udpFrame(t, wan1, 1, server, 2, big)),
		"information": echoFrame(t, server, wan1, 15, 9, big),
		"esp":         build(t, ip(server, wan1, layers.IPProtocolESP), gopacket.Payload(big)),
	} {
		for _, order := range permutations(3) {
			w := newWorld(t)
			fragments := cut(t, frame, 1480)
			passed, res := w.carry(fragments, order, func(b []byte) Result { return w.in(b, 1) })
			if len(passed) != 3 || res.Verdict != GiveBack || res.Uplink != 1 {
				t.Fatalf("%s %v: %d fragments, %+v", name, order, len(passed), res)
			}
			if got := join(t, passed); string(got[packet.VnetLen:]) != string(frame[packet.VnetLen:]) {
				t.Errorf("%s %v: changed", name, order)
			}
		}
	}
}

// TestFragmentsToOurPorts: the host's stack must not answer for a mapped port, unless a socket has it.
func TestFragmentsToOurPorts(t *testing.T) {
	w := newWorld(t)
	b := udpFrame(t, inside, 4000, server, 53, "open")
	port := outsidePort(w.sent(w.out(b), b, 1))
	fragments := cut(t, udpFrame(t, router, 53, wan1, port, big), 1480)
	w.expect(w.in(clone(fragments[1]), 1), Hold, NoReason)
	w.expect(w.in(clone(fragments[0]), 1), Drop, Filtered)
	w.expect(w.in(clone(fragments[2]), 1), Drop, Filtered)
	if n := w.drops(Filtered); n != 3 {
		t.Errorf("%d dropped", n)
	}
	w.held = true
	w.expect(w.in(clone(fragments[0]), 1), GiveBack, NoReason)
	w.expect(w.in(clone(fragments[1]), 1), GiveBack, NoReason)
}

// TestIGMPInFragments is never translated, and the host's stack has what comes in.
func TestIGMPInFragments(t *testing.T) {
	w := newWorld(t)
	fragments := cut(t, build(t, ip(server, wan1, layers.IPProtocolIGMP), gopacket.Payload(big)), 1480)
	for _, f := range fragments {
		w.expect(w.in(clone(f), 1), Ignore, NoReason)
	}
	fragments = cut(t, build(t, ip(inside, server, layers.IPProtocolIGMP), gopacket.Payload(big)), 1480)
	for _, f := range fragments {
		w.expect(w.out(clone(f)), Drop, UnknownProtocol)
	}
	fragments = cut(t, build(t, ip(wan2, server, layers.IPProtocolIGMP), gopacket.Payload(big)), 1480)
	for _, f := range fragments {
		b := clone(f)
		w.sent(w.out(b), b, 2)
	}
}

// TestOwnFragments leave unchanged by their uplink, each by itself.
func TestOwnFragments(t *testing.T) {
	w := newWorld(t)
	for _, f := range cut(t, udpFrame(t, wan2, 4000, server, 53, big), 1480) {
		b := clone(f)
		w.sent(w.out(b), b, 2)
		if string(b) != string(f) {
			t.Error("changed")
		}
	}
}

// TestUnsoundFragments are dropped: tiny first ones, those that overwrite a header, that end in no place, beyond the
// largest datagram (RFC 791, RFC 1858).
func TestUnsoundFragments(t *testing.T) {
	piece := func(proto layers.IPProtocol, offset int, more bool, n int) []byte {
		h := ip(inside, server, proto)
		h.FragOffset = uint16(offset / 8)
		if more {
			h.Flags = layers.IPv4MoreFragments
		}
		return build(t, h, gopacket.Payload(make([]byte, n)))
	}
	for name, b := range map[string][]byte{
		"tiny tcp":           piece(protoTCP, 0, true, 16),
		"tiny icmp":          piece(protoICMP, 0, true, 0),
		"tcp flags":          piece(protoTCP, 8, false, 100),
		"tcp urgent pointer": piece(protoTCP, 16, false, 100),
		"odd end":            piece(protoUDP, 800, true, 99),
		"empty":              piece(protoUDP, 800, false, 0),
		"ping of death":      piece(protoICMP, 65528, false, 100),
	} {
		for side, handle := range map[string]func(*world, []byte) Result{
			"out": func(w *world, b []byte) Result { return w.out(b) },
			"in":  func(w *world, b []byte) Result { return w.in(b, 1) },
		} {
			t.Run(name+" "+side, func(t *testing.T) {
				w := newWorld(t)
				w.expect(handle(w, clone(b)), Drop, BadPacket)
			})
		}
	}
}

// TestFragmentsTooBig: of fragments that must not be cut further the sender is told once, about the first (RFC 1122 §3.2.2).
func TestFragmentsTooBig(t *testing.T) {
	w := newWorld(t)
	w.ups[0].MTU = 1400
	w.publish()
	fragments := cut(t, uncut(udpFrame(t, inside, 4000, server, 53, big)), 1480)
	res := w.out(clone(fragments[0]))
	w.expect(res, Drop, TooBig)
	if s := look(t, res.Reply); s.icmp.TypeCode.Code() != layers.ICMPv4CodeFragmentationNeeded || s.icmp.Seq != 1400 {
		t.Errorf("reply %v", s.icmp)
	}
	for _, f := range fragments[1:] {
		res := w.out(clone(f))
		w.expect(res, Drop, TooBig)
		if res.Reply != nil {
			t.Error("an error about a later fragment")
		}
	}
}

// TestRefusedFragments: what refuses the first refuses all, also those that wait.
func TestRefusedFragments(t *testing.T) {
	w := newWorld(t)
	fragments := cut(t, tcpFrame(t, inside, 4000, server, 80, packet.ACK, big), 1480)
	w.expect(w.out(clone(fragments[2])), Hold, NoReason)
	res := w.out(clone(fragments[0]))
	w.expect(res, Drop, NotSYN)
	if res.Reply == nil || len(res.Released) != 0 {
		t.Errorf("%d released, reply of %d bytes", len(res.Released), len(res.Reply))
	}
	w.expect(w.out(clone(fragments[1])), Drop, NotSYN)
}

// TestFragmentsOfEndedSession: what the record holds by now is not theirs.
func TestFragmentsOfEndedSession(t *testing.T) {
	w := newWorld(t)
	fragments := cut(t, udpFrame(t, inside, 4000, server, 53, big), 1480)
	w.expect(w.out(clone(fragments[0])), Send, NoReason)
	w.ups[0].Generation++
	w.publish()
	w.expect(w.out(clone(fragments[1])), Drop, StaleSession)
}

// TestFragmentsStayApart: two inside hosts use the same identification to the same remote (RFC 6864 §5.3).
func TestFragmentsStayApart(t *testing.T) {
	w := newWorld(t)
	one := cut(t, udpFrame(t, inside, 4000, server, 53, big), 1480)
	two := cut(t, udpFrame(t, other, 4000, server, 53, big), 1480)
	var ids [2]map[uint16]bool
	for i, list := range [][][]byte{one, two} {
		ids[i] = make(map[uint16]bool)
		for _, f := range list {
			b := clone(f)
			ids[i][w.sent(w.out(b), b, 1).ip.Id] = true
		}
	}
	if len(ids[0]) != 1 || len(ids[1]) != 1 {
		t.Fatalf("a datagram has several identifications: %v", ids)
	}
	for id := range ids[0] {
		if ids[1][id] {
			t.Errorf("both datagrams have identification %d", id)
		}
	}
}

// TestOrphansAreCounted, and harm nobody.
func TestOrphansAreCounted(t *testing.T) {
	const flood = 10000
	w := newWorld(t)
	whole := udpFrame(t, inside, 4000, server, 53, "open")
	w.expect(w.out(clone(whole)), Send, NoReason)
	orphan := cut(t, udpFrame(t, server, 1, wan1, 2, big), 1480)[1]
	for i := range flood {
		b := clone(orphan)
		b[packet.VnetLen+26] = byte(i >> 8) // the source
		b[packet.VnetLen+27] = byte(i)
		w.expect(w.in(b, 1), Hold, NoReason)
	}
	w.expect(w.out(clone(whole)), Send, NoReason)
	fragments := cut(t, udpFrame(t, server, 1, wan2, 2, big), 1480)
	w.expect(w.in(clone(fragments[1]), 2), Hold, NoReason)
	if res := w.in(clone(fragments[0]), 2); len(res.Released) != 1 {
		t.Error("a flood on one uplink displaced a fragment of another")
	}
	late := start + nat.TickOf(3*time.Second)
	w.g.Inbound(clone(orphan), 1, late)
	if n := w.drops(FragmentLost); n != flood {
		t.Errorf("%d counted as lost, want %d", n, flood)
	}
}
