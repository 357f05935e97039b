package tapgw

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"pgregory.net/rapid"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// conversation is a random first packet and its answer.
type conversation struct {
	inside, remote packet.Addr
	iport, rport   uint16
	proto          layers.IPProtocol
	payload        []byte
	noChecksum     bool // UDP without one (RFC 768)
	partial        bool
	pieces         int // 0 for whole packets, else the payload of each fragment in units of 8 bytes
}

func conversations(t *rapid.T) conversation {
	c := conversation{
		inside:  packet.IPv4(0x0a000000 | rapid.Uint32Range(1, 0xfffffe).Draw(t, "inside")),
		remote:  packet.IPv4(rapid.Uint32Range(0x0b000000, 0x5fffffff).Draw(t, "remote")),
		iport:   rapid.Uint16().Draw(t, "inside port"),
		rport:   rapid.Uint16().Draw(t, "remote port"),
		proto:   rapid.SampledFrom([]layers.IPProtocol{protoTCP, protoUDP, protoICMP}).Draw(t, "protocol"),
		payload: rapid.SliceOfN(rapid.Byte(), 0, 1300).Draw(t, "payload"),
		pieces:  rapid.SampledFrom([]int{0, 0, 3, 50}).Draw(t, "fragment size"),
	}
	if c.proto == protoUDP {
		c.noChecksum = rapid.Bool().Draw(t, "without checksum")
	}
	if c.proto != protoICMP && c.pieces == 0 && !c.noChecksum {
		c.partial = rapid.Bool().Draw(t, "partial")
	}
	return c
}

// frames is the packet from src to dst, whole or in pieces. reply chooses the type of an ICMP query and the TCP flags.
func (c *conversation) frames(t testing.TB, src, dst packet.Addr, sport, dport uint16, reply bool) [][]byte {
	var b []byte
	switch {
	case c.proto == protoUDP:
		b = udpFrame(t, src, sport, dst, dport, string(c.payload))
	case c.proto == protoTCP && reply:
		b = tcpFrame(t, src, sport, dst, dport, synAck, string(c.payload))
	case c.proto == protoTCP:
		b = tcpFrame(t, src, sport, dst, dport, syn, string(c.payload))
	case reply:
		b = echoFrame(t, src, dst, packet.ICMPEchoReply, dport, string(c.payload))
	default:
		b = echoFrame(t, src, dst, packet.ICMPEcho, sport, string(c.payload))
	}
	if c.noChecksum {
		binary.BigEndian.PutUint16(b[packet.VnetLen+40:], 0)
	}
	if c.partial {
		b = partial(b)
	}
	if c.pieces > 0 && len(c.payload) > 8*c.pieces {
		return cut(t, b, 8*c.pieces)
	}
	return [][]byte{b}
}

// TestThereAndBack: the reply to what left reaches who sent it, nothing but addresses, ports and checksums changes, and
// all of them are right.
func TestThereAndBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := conversations(rt)
		w := newWorld(t)
		first := c.frames(t, c.inside, c.remote, c.iport, c.rport, false)
		passed := through(rt, t, first, w.out, Send)
		s := look(t, join(t, passed))
		port := outsidePort(s)
		if s.src() != wan1 || s.dst() != c.remote || remotePort(s, c.rport) != c.rport || port < 1024 {
			rt.Fatalf("sent %v", s.ip)
		}
		back := c.frames(t, c.remote, wan1, c.rport, port, true)
		passed = through(rt, t, back, w.first, Deliver)
		want := c.frames(t, c.remote, c.inside, c.rport, c.iport, true)
		for i := range passed {
			if got, want := passed[i][packet.VnetLen+packet.EthernetLen:], want[i][packet.VnetLen+packet.EthernetLen:]; !c.same(got, want) {
				rt.Fatalf("delivered\n% x, want\n% x", got, want)
			}
		}
	})
}

// same compares packets; the two forms of zero in a checksum are the same.
func (c *conversation) same(got, want []byte) bool {
	got, want = clone(got), clone(want)
	at := 20 + map[layers.IPProtocol]int{protoTCP: 16, protoUDP: 6, protoICMP: 2}[c.proto]
	for _, b := range [][]byte{got, want} {
		if len(b) >= at+2 && b[6]&0x1f == 0 && b[7] == 0 && b[at] == 0xff && b[at+1] == 0xff && !c.noChecksum {
			b[at], b[at+1] = 0, 0
		}
	}
	return string(got) == string(want)
}

// through hands frames over in a random order and returns all that came out in their own order, with right checksums.
func through(rt *rapid.T, t testing.TB, frames [][]byte, handle func([]byte) Result, want Verdict) (passed [][]byte) {
	order := rapid.Permutation(frames).Draw(rt, "order")
	for _, f := range order {
		b := clone(f)
		res := handle(b)
		switch res.Verdict {
		case want:
			passed = append(append(passed, b), res.Released...)
		case Hold:
		default:
			rt.Fatalf("verdict %d, reason %q", res.Verdict, res.Reason)
		}
	}
	if len(passed) != len(frames) {
		rt.Fatalf("%d of %d came out", len(passed), len(frames))
	}
	sorted := make([][]byte, len(frames))
	for _, b := range passed {
		s := look(t, b)
		for i, f := range frames {
			if binary.BigEndian.Uint16(f[packet.VnetLen+20:]) == binary.BigEndian.Uint16(b[packet.VnetLen+20:]) && s.ip.Length == look(t, f).ip.Length {
				sorted[i] = b
			}
		}
	}
	return sorted
}

// remotePort is the destination port of what was sent; none is the answer for ICMP.
func remotePort(s *seen, none uint16) uint16 {
	switch {
	case s.tcp != nil:
		return uint16(s.tcp.DstPort)
	case s.udp != nil:
		return uint16(s.udp.DstPort)
	}
	return none
}

// FuzzGateway hands arbitrary frames to both sides: nothing panics, nothing outside the frame is written, and what goes
// on has right checksums if it had them before.
func FuzzGateway(f *testing.F) {
	udp := udpFrame(f, inside, 4000, server, 53, big)
	for _, b := range [][]byte{
		udpFrame(f, inside, 4000, server, 53, "x"), tcpFrame(f, inside, 4000, server, 80, syn, "x"), partial(tcpFrame(f, inside, 4000, server, 80, syn, "x")),
		tcpFrame(f, inside, 4000, server, 80, ack, "x"), echoFrame(f, inside, server, packet.ICMPEcho, 7, "x"),
		udpFrame(f, server, 53, wan1, fuzzPort, "x"), udpFrame(f, server, 53, wan1, fuzzPort+1, "x"), udpFrame(f, wan2, 53, server, 53, "x"),
		errorFrame(f, router, wan1, udpFrame(f, wan1, fuzzPort, server, 53, "x")), errorFrame(f, inside, server, udpFrame(f, server, 53, inside, 4000, "x")),
		build(f, ip(server, wan1, layers.IPProtocolGRE), gopacket.Payload("x")), typed(udp, 0x0806), typed(udp, 0x86dd),
		udpFrame(f, inside, 4000, server, 53, aboutName(f, "www.example", site, false)),
	} {
		f.Add(b, []byte(nil), false)
		f.Add(b, []byte(nil), true)
	}
	for _, b := range [][]byte{udp, udpFrame(f, server, 53, wan1, fuzzPort, big), udpFrame(f, server, 53, wan1, 9, big)} {
		pieces := cut(f, b, 1480)
		f.Add(pieces[0], pieces[1], false)
		f.Add(pieces[1], pieces[0], false)
		f.Add(pieces[0], pieces[1], true)
		f.Add(pieces[2], pieces[0], true)
	}
	f.Fuzz(func(t *testing.T, one, two []byte, in bool) {
		w := newWorld(t, onePort)
		w.g.SetNames(NewNames())
		w.open(udpFrame(t, inside, 4000, server, 53, "x"))
		handle := w.out
		if in {
			handle = w.first
		}
		for _, frame := range [][]byte{one, two} {
			fuzzOne(t, frame, handle)
		}
	})
}

// fuzzPort is the only outside port of a gateway that is fuzzed, so that inputs can name it.
const fuzzPort = 5000

func onePort(c *nat.Config) {
	c.MaxSessions, c.Ports = 16, []nat.PortRange{{First: fuzzPort, Last: fuzzPort}}
}

const guard = "guard" // behind each frame

func fuzzOne(t *testing.T, frame []byte, handle func([]byte) Result) {
	right := sound(frame) && checkSums(frame) == ""
	buf := append(clone(frame), guard...)
	b := buf[:len(frame):len(buf)]
	res := handle(b)
	if string(buf[len(frame):]) != guard {
		t.Fatal("written behind the frame")
	}
	if !right {
		return
	}
	if res.Verdict == Send || res.Verdict == Deliver || res.Verdict == GiveBack {
		look(t, b)
	}
	for _, r := range append(res.Released, res.Reply) {
		if sound(r) && &r[0] == &b[0] {
			t.Fatal("released the caller's buffer")
		}
	}
	if sound(res.Reply) {
		look(t, res.Reply)
	}
}

// sound reports whether a frame is IPv4 as far as its header says, so that checksums can be looked at.
func sound(b []byte) bool {
	if len(b) < packet.VnetLen+packet.EthernetLen+20 {
		return false
	}
	ip := b[packet.VnetLen+packet.EthernetLen:]
	n := int(binary.BigEndian.Uint16(ip[2:]))
	return b[packet.VnetLen+12] == 8 && b[packet.VnetLen+13] == 0 && ip[0]>>4 == 4 && ip[0]&15 >= 5 && n >= int(ip[0]&15)*4 && n <= len(ip)
}
