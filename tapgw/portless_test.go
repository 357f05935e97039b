package tapgw

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// portless are protocols of which only addresses are translated: GRE, ESP, AH, SCTP, UDP-Lite, DCCP, and one for experiments.
var portless = []layers.IPProtocol{47, 50, 51, 132, packet.ProtoUDPLite, packet.ProtoDCCP, 253}

// portlessFrame is a datagram with text in it, and a checksum over all of it where the protocol has one.
func portlessFrame(t testing.TB, proto layers.IPProtocol, src, dst packet.Addr, text string) []byte {
	body := append([]byte{0, 7, 0, 9, 0, 0, 0, 0}, text...)
	if proto == packet.ProtoUDPLite || proto == packet.ProtoDCCP {
		pseudo := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, src.V4()), dst.V4())
		pseudo = append(pseudo, 0, byte(proto), byte(len(body)>>8), byte(len(body)))
		binary.BigEndian.PutUint16(body[6:], ^wordSum(append(pseudo, body...)))
	}
	return build(t, ip(src, dst, proto), gopacket.Payload(body))
}

// expectDatagram fails unless what was seen is the datagram as portlessFrame makes it for these addresses.
func expectDatagram(t *testing.T, s *seen, proto layers.IPProtocol, src, dst packet.Addr, text string) {
	t.Helper()
	want := look(t, portlessFrame(t, proto, src, dst, text))
	if s.src() != src || s.dst() != dst || s.ip.Protocol != proto || string(s.data) != string(want.data) {
		t.Fatalf("%s to %s, protocol %d, % x; want % x", s.ip.SrcIP, s.ip.DstIP, s.ip.Protocol, s.data, want.data)
	}
}

// TestOtherProtocols_ThereAndBack: the source becomes that of the uplink, and a reply comes back, by the uplink alone.
func TestOtherProtocols_ThereAndBack(t *testing.T) {
	for _, proto := range portless {
		w := newWorld(t)
		b := portlessFrame(t, proto, inside, server, "request")
		expectDatagram(t, w.sent(w.out(b), b, 1), proto, wan1, server, "request")
		b = portlessFrame(t, proto, server, wan1, "reply")
		expectDatagram(t, w.delivered(w.in(b, 1), b), proto, server, inside, "reply")
		for name, b := range map[string][]byte{
			"another remote":   portlessFrame(t, proto, router, wan1, "x"),
			"another address":  portlessFrame(t, proto, server, wan2, "x"),
			"another protocol": portlessFrame(t, 254, server, wan1, "x"),
		} {
			before := clone(b)
			if res := w.in(b, 1); res.Verdict != GiveBack || res.Uplink != 1 || string(b) != string(before) {
				t.Errorf("protocol %d, %s: %+v", proto, name, res)
			}
		}
		w.expect(w.in(portlessFrame(t, proto, server, wan1, "x"), 2), Drop, WrongUplink)
	}
}

// TestOtherProtocols_HostsOwn: what has an uplink's own address leaves by it unchanged, and what comes to it is the host's.
func TestOtherProtocols_HostsOwn(t *testing.T) {
	w := newWorld(t)
	for _, proto := range portless {
		b := portlessFrame(t, proto, wan2, server, "own")
		expectDatagram(t, w.sent(w.out(b), b, 2), proto, wan2, server, "own")
		w.expect(w.in(portlessFrame(t, proto, server, wan2, "to the host"), 2), GiveBack, NoReason)
	}
	if n := w.table.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestOtherProtocols_OneRemote: of inside hosts that speak with the same remote each has an uplink, the rest are told that
// there is no room; a host that is on one for another remote keeps it.
func TestOtherProtocols_OneRemote(t *testing.T) {
	for _, proto := range portless {
		w := newWorld(t)
		from := func(src, dst packet.Addr, uplink uint8) {
			t.Helper()
			b := portlessFrame(t, proto, src, dst, "x")
			w.sent(w.out(b), b, uplink)
		}
		from(inside, server, 1)
		from(other, router, 1)
		from(other, server, 2)
		from(other, router, 1)
		res := w.out(portlessFrame(t, proto, packet.IPv4(other.V4()+1), server, "x"))
		w.expect(res, Drop, NoPort)
		checkAnswer(t, res.Reply, layers.ICMPv4CodeCommAdminProhibited)
		for uplink, dst := range map[uint8]packet.Addr{1: inside, 2: other} {
			outside := map[uint8]packet.Addr{1: wan1, 2: wan2}[uplink]
			b := portlessFrame(t, proto, server, outside, "reply")
			expectDatagram(t, w.delivered(w.in(b, uplink), b), proto, server, dst, "reply")
		}
	}
}

// TestOtherProtocols_SingleUplink: without another uplink the second host is refused for lack of an address, not of an uplink.
func TestOtherProtocols_SingleUplink(t *testing.T) {
	w := newWorld(t)
	w.ups[1] = uplinks.Uplink{}
	w.publish()
	w.expect(w.out(portlessFrame(t, 47, inside, server, "x")), Send, NoReason)
	w.expect(w.out(portlessFrame(t, 47, other, router, "x")), Send, NoReason)
	w.expect(w.out(portlessFrame(t, 47, other, server, "x")), Drop, NoPort)
	if n := w.table.Stats().Refused.NoPort; n != 1 {
		t.Errorf("%d refusals", n)
	}
}

// TestMW1_OtherProtocols: all sessions of a host by one protocol use one uplink, though it is no longer the best.
func TestMW1_OtherProtocols(t *testing.T) {
	w := newWorld(t)
	w.ups[0].Tier = 9
	w.publish()
	w.expect(w.out(portlessFrame(t, 50, inside, server, "x")), Send, NoReason)
	w.ups[0].Tier = 0
	w.publish()
	for i := range uint32(20) {
		remote := packet.IPv4(router.V4() + i)
		b := portlessFrame(t, 50, inside, remote, "x")
		expectDatagram(t, w.sent(w.out(b), b, 2), 50, wan2, remote, "x")
	}
}

// TestMW3_FollowsItsNegotiation: ESP goes where IKE is, and GRE where PPTP's control connection is, with either end of the
// host's choice; an uplink that is down is followed by nobody.
func TestMW3_FollowsItsNegotiation(t *testing.T) {
	for name, c := range map[string]struct {
		control []byte
		proto   layers.IPProtocol
	}{
		"ike":         {udpFrame(t, inside, 500, server, 500, "x"), 50},
		"ike behind":  {udpFrame(t, inside, 1234, server, 4500, "x"), 51},
		"pptp":        {tcpFrame(t, inside, 40000, server, 1723, syn, ""), 47},
		"another one": {portlessFrame(t, 50, inside, server, "x"), 51},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ups[0].Tier = 9
			w.publish()
			w.expect(w.out(clone(c.control)), Send, NoReason)
			w.ups[0].Tier = 0
			w.publish()
			b := portlessFrame(t, c.proto, inside, server, "x")
			w.sent(w.out(b), b, 2)
			ref := w.table.FindOut(nat.Key{Inside: inside, Remote: server, Proto: uint8(c.proto)})
			if why := policy.Reason(w.table.Translation(ref).Reason); why != policy.ReasonCompanion {
				t.Errorf("the reason is %q", why)
			}
			b = portlessFrame(t, c.proto, other, server, "x")
			w.sent(w.out(b), b, 1)
			w.table.End(nat.Key{Inside: inside, Remote: server, Proto: uint8(c.proto)}, start)
			w.table.End(nat.Key{Inside: other, Remote: server, Proto: uint8(c.proto)}, start)
			w.ups[1].State = uplinks.Down
			w.publish()
			b = portlessFrame(t, c.proto, inside, server, "x")
			w.sent(w.out(b), b, 1)
		})
	}
}

// TestOtherProtocols_Errors about such packets are translated both ways, also when they quote no more than the header of IPv4.
func TestOtherProtocols_Errors(t *testing.T) {
	for _, proto := range portless {
		for _, text := range []string{"a text that is quoted", ""} {
			t.Run(fmt.Sprint(proto, len(text)), func(t *testing.T) {
				w := newWorld(t)
				b := portlessFrame(t, proto, inside, server, text)
				w.sent(w.out(b), b, 1)
				b = errorFrame(t, router, wan1, b)
				s := w.delivered(w.in(b, 1), b)
				want := look(t, errorFrame(t, router, inside, portlessFrame(t, proto, inside, server, text)))
				if s.src() != router || s.dst() != inside || string(s.data) != string(want.data) {
					t.Errorf("inwards % x\nwant % x", s.data, want.data)
				}
				b = errorFrame(t, other, server, portlessFrame(t, proto, server, inside, text))
				s = w.sent(w.out(b), b, 1)
				want = look(t, errorFrame(t, wan1, server, portlessFrame(t, proto, server, wan1, text)))
				if s.src() != wan1 || s.dst() != server || string(s.data) != string(want.data) {
					t.Errorf("outwards % x\nwant % x", s.data, want.data)
				}
				w.expect(w.in(errorFrame(t, router, wan1, portlessFrame(t, proto, wan1, router, text)), 1), Ignore, NoReason)
			})
		}
	}
}

// TestOtherProtocols_Fragments follow their first, in any order, also by another uplink than the host's first choice.
func TestOtherProtocols_Fragments(t *testing.T) {
	for _, proto := range portless {
		for _, order := range permutations(3) {
			w := newWorld(t)
			w.expect(w.out(portlessFrame(t, proto, other, server, "x")), Send, NoReason)
			passed, res := w.carry(cut(t, portlessFrame(t, proto, inside, server, big), 1480), order, w.out)
			if len(passed) != 3 || res.Verdict != Send || res.Uplink != 2 {
				t.Fatalf("protocol %d, %v: %d fragments sent, %+v", proto, order, len(passed), res)
			}
			expectDatagram(t, look(t, join(t, passed)), proto, wan2, server, big)
			back := cut(t, portlessFrame(t, proto, server, wan2, big), 1480)
			passed, res = w.carry(back, order, func(b []byte) Result { return w.in(b, 2) })
			if len(passed) != 3 || res.Verdict != Deliver {
				t.Fatalf("protocol %d, %v: %d fragments delivered, %+v", proto, order, len(passed), res)
			}
			expectDatagram(t, look(t, join(t, passed)), proto, server, inside, big)
		}
	}
}

// TestRFC5508_REQ10_REQ11_OtherICMPTypes: those that are not translated are dropped and counted, whole or in pieces.
func TestRFC5508_REQ10_REQ11_OtherICMPTypes(t *testing.T) {
	w := newWorld(t)
	dropped := uint64(0)
	translated := map[int]bool{0: true, 3: true, 8: true, 11: true, 12: true, 13: true, 14: true}
	for kind := range 256 {
		if translated[kind] {
			continue
		}
		w.expect(w.out(echoFrame(t, inside, server, uint8(kind), 9, "x")), Drop, UnknownProtocol)
		w.expect(w.out(cut(t, echoFrame(t, inside, server, uint8(kind), 9, big), 1480)[0]), Drop, UnknownProtocol)
		w.expect(w.in(echoFrame(t, server, wan1, uint8(kind), 9, "x"), 1), Ignore, NoReason)
		dropped += 2
	}
	if n := w.drops(UnknownProtocol); n != dropped {
		t.Errorf("%d counted of %d", n, dropped)
	}
}

// TestICMPOfTheOtherFamily: ICMPv6 within IPv4 is nobody's, whole or in pieces.
func TestICMPOfTheOtherFamily(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []byte{0, 8, 128, 129} {
		message := gopacket.Payload(append([]byte{kind, 0, 0, 0, 0, 7, 0, 1}, big...))
		b := build(t, ip(inside, server, packet.ProtoICMPv6), message)
		w.expect(w.out(clone(b)), Drop, UnknownProtocol)
		for _, piece := range cut(t, b, 1480) {
			if res := w.out(piece); res.Verdict == Send {
				t.Errorf("a piece of kind %d: %+v", kind, res)
			}
		}
		b = build(t, ip(server, wan1, packet.ProtoICMPv6), message)
		w.expect(w.in(clone(b), 1), Ignore, NoReason)
		for _, piece := range cut(t, b, 1480) {
			if res := w.in(piece, 1); res.Verdict == Deliver {
				t.Errorf("a piece of kind %d: %+v", kind, res)
			}
		}
	}
	if n := w.table.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions", n)
	}
}
