package tapgw

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// uncut sets the flag that forbids cutting.
func uncut(b []byte) []byte {
	h := b[packet.VnetLen+packet.EthernetLen:]
	h[6] |= 0x40
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^wordSum(h[:int(h[0]&15)*4]))
	return b
}

// pieces fails unless res sends fragments that an uplink of an MTU takes, and returns what they are together.
func (w *world) pieces(res Result, mtu int) *seen {
	w.t.Helper()
	w.expect(res, Send, NoReason)
	if len(res.Pieces) < 2 {
		w.t.Fatalf("%d pieces", len(res.Pieces))
	}
	next := 0
	for _, f := range res.Pieces {
		s := look(w.t, f)
		if int(s.ip.Length) > mtu || int(s.ip.FragOffset)*8 != next {
			w.t.Fatalf("%d bytes at %d, expected at %d", s.ip.Length, int(s.ip.FragOffset)*8, next)
		}
		next += len(s.data)
	}
	return look(w.t, join(w.t, res.Pieces))
}

// TestRFC4787_REQ13a_TooBigIsCut: what may be cut leaves in pieces, in order, under an identification of the inside host's own:
// from the inside, by an own address, as the answer of a service, and with a checksum that was left to the device.
func TestRFC4787_REQ13a_TooBigIsCut(t *testing.T) {
	const mtu = 1400
	for name, c := range map[string]struct {
		frame []byte
		from  packet.Addr
	}{
		"udp":     {udpFrame(t, inside, 4000, server, 53, big), wan1},
		"partial": {partial(udpFrame(t, inside, 4000, server, 53, big)), wan1},
		"echo":    {echoFrame(t, inside, server, packet.ICMPEcho, 7, big), wan1},
		"tcp":     {tcpFrame(t, inside, 4000, server, 80, syn, big), wan1},
		"own":     {udpFrame(t, wan1, 4000, server, 53, big), wan1},
		"service": {udpFrame(t, tapIP, seenByHost, server, remoteAsked, big), wan2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHost(t)
			w.ups[0].MTU, w.ups[1].MTU = mtu, mtu
			w.publish()
			w.in(udpFrame(t, server, remoteAsked, wan2, seenByHost, "x"), 2)
			s := w.pieces(w.out(clone(c.frame)), mtu)
			if s.src() != c.from || !bytes.HasSuffix(s.data, []byte(big)) {
				t.Errorf("from %s, %d bytes", s.ip.SrcIP, len(s.data))
			}
			if own := name == "own"; own != (s.ip.Id == 77) {
				t.Errorf("identification %d", s.ip.Id)
			}
		})
	}
}

// TestRFC4787_REQ13a_FragmentsAreCutFurther, also those that waited for their first.
func TestRFC4787_REQ13a_FragmentsAreCutFurther(t *testing.T) {
	const mtu = 700
	fragments := cut(t, udpFrame(t, inside, 4000, server, 53, big), 1480)
	for _, order := range permutations(3) {
		w := newWorld(t)
		w.ups[0].MTU = mtu
		w.publish()
		var passed [][]byte
		for _, i := range order {
			b := clone(fragments[i])
			res := w.out(b)
			if res.Verdict == Hold {
				continue
			}
			if res.Pieces == nil {
				passed = append(passed, b)
			}
			passed = append(append(passed, res.Pieces...), res.Released...)
		}
		for _, f := range passed {
			if s := look(t, f); int(s.ip.Length) > mtu {
				t.Fatalf("order %v: %d bytes", order, s.ip.Length)
			}
		}
		if s := look(t, join(t, passed)); s.src() != wan1 || s.udp == nil || string(s.udp.Payload) != big {
			t.Errorf("order %v: not the same datagram", order)
		}
	}
}

// TestRFC1812_NoErrorAboutAnError: one that does not fit is dropped in silence.
func TestRFC1812_NoErrorAboutAnError(t *testing.T) {
	w := newWorld(t)
	quoted := udpFrame(t, server, 53, wan1, 4000, big)
	res := w.out(uncut(errorFrame(t, wan1, server, quoted)))
	w.expect(res, Drop, TooBig)
	if res.Reply != nil {
		t.Error("it was answered")
	}
}

// TestClampMSS: connections announce what their uplink takes, in both directions and after they moved, unless that is
// switched off.
func TestClampMSS(t *testing.T) {
	w := newWorld(t)
	w.ups[1].MTU = 1400
	w.publish()
	syn := func(src packet.Addr, sport uint16, dst packet.Addr, dport uint16, isAnswer bool) []byte {
		return build(t, ip(src, dst, protoTCP), &layers.TCP{
			SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), SYN: true, ACK: isAnswer,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}},
		}, gopacket.Payload(""))
	}
	announced := func(s *seen) uint16 { return binary.BigEndian.Uint16(s.tcp.Options[0].OptionData) }
	check := func(on bool, uplink uint8, from packet.Addr, want uint16) {
		t.Helper()
		w.g.SetTCP(TCPOptions{ClampMSS: on})
		for _, prepare := range []func([]byte) []byte{clone, partial} {
			b := prepare(syn(inside, 4000, server, 80, false))
			s := w.sent(w.out(b), b, uplink)
			if got := announced(s); got != want {
				t.Errorf("SYN by uplink %d announces %d, want %d", uplink, got, want)
			}
			b = syn(server, 80, from, uint16(s.tcp.SrcPort), true)
			if got := announced(w.delivered(w.in(b, uplink), b)); got != want {
				t.Errorf("answer by uplink %d announces %d, want %d", uplink, got, want)
			}
		}
	}
	check(true, 1, wan1, 1460)
	w.ups[0].ID = 0
	w.publish()
	w.table.Purge(1, 2, start)
	check(false, 2, wan2, 1460)
	check(true, 2, wan2, 1360)
	b := syn(wan2, 80, server, 4000, true)
	if got := announced(w.sent(w.out(b), b, 2)); got != 1360 {
		t.Errorf("an own answer announces %d", got)
	}
}
