package tapgw

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// dialogue is a TCP connection from inside, whose ends count their own bytes.
type dialogue struct {
	*world
	port, remotePort uint16
	outside          uint16
	uplink           uint8
	client, server   uint32             // next sequence numbers, each end's own
	seenC, seenS     uint32             // what the client has got of the server, and the server of the client, in the numbers they saw
	options          []layers.TCPOption // of the next segment
}

// room is what a buffer has for growing.
const room = 4096

func (d *dialogue) frame(out bool, flags uint8, seq, ack uint32, payload string) []byte {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(d.port), DstPort: layers.TCPPort(d.remotePort), Seq: seq, Ack: ack, Window: 100, Options: d.options,
		FIN: flags&packet.FIN != 0, SYN: flags&packet.SYN != 0, RST: flags&packet.RST != 0, ACK: flags&packet.ACK != 0,
	}
	h := ip(inside, server, protoTCP)
	if !out {
		h = ip(server, wan(d.uplink), protoTCP)
		tcp.SrcPort, tcp.DstPort = layers.TCPPort(d.remotePort), layers.TCPPort(d.outside)
	}
	d.options = nil
	return slices.Grow(build(d.t, h, tcp, gopacket.Payload(payload)), room)
}

func wan(uplink uint8) packet.Addr {
	if uplink == 2 {
		return wan2
	}
	return wan1
}

// connect opens a connection and does its handshake.
func connect(w *world, port, remotePort uint16) *dialogue {
	w.t.Helper()
	d := &dialogue{world: w, port: port, remotePort: remotePort, client: 1<<32 - 10, server: 5000}
	b := d.frame(true, syn, d.client, 0, "")
	res := w.out(b)
	s := w.sent(res, b, res.Uplink)
	d.outside, d.uplink = uint16(s.tcp.SrcPort), res.Uplink
	d.client++
	d.seenS = d.client
	d.deliver(d.frame(false, synAck, d.server, d.seenS, ""))
	d.server++
	d.seenC = d.server
	d.send(d.frame(true, ack, d.client, d.seenC, ""))
	return d
}

// send and deliver give a frame to the gateway and return what comes out of it.
func (d *dialogue) send(b []byte) *seen {
	d.t.Helper()
	res := d.out(b)
	return d.sent(res, b[:len(b)+int(res.Grown)], d.uplink)
}

func (d *dialogue) deliver(b []byte) *seen {
	d.t.Helper()
	res := d.in(b, d.uplink)
	return d.delivered(res, b[:len(b)+int(res.Grown)])
}

// say sends a payload of the client, and returns what the server gets.
func (d *dialogue) say(payload string) string {
	d.t.Helper()
	return d.passed(payload, d.send(d.frame(true, ack, d.client, d.seenC, payload)), &d.client, &d.seenS, d.server)
}

// answer sends a payload of the server, and returns what the client gets.
func (d *dialogue) answer(payload string) string {
	d.t.Helper()
	return d.passed(payload, d.deliver(d.frame(false, ack, d.server, d.seenS, payload)), &d.server, &d.seenC, d.client)
}

// passed checks the numbers of what came out for a payload, and moves on those that its sender and its receiver count.
func (d *dialogue) passed(payload string, s *seen, sender, receiver *uint32, acknowledged uint32) string {
	d.t.Helper()
	if s.tcp.Seq != *receiver || s.tcp.Ack != acknowledged {
		d.t.Errorf("%q goes on at %d acknowledging %d, not %d and %d", payload, s.tcp.Seq, s.tcp.Ack, *receiver, acknowledged)
	}
	*sender += uint32(len(payload))
	*receiver += uint32(len(s.tcp.Payload))
	return string(s.tcp.Payload)
}

func newHelpedWorld(t testing.TB) *world {
	w := newWorld(t)
	w.g.SetHelpers(helped)
	return w
}

// active says PORT and returns the outside port that the server is told.
func (d *dialogue) active(port uint16) uint16 {
	d.t.Helper()
	got := d.say(fmt.Sprintf("PORT 10,0,0,2,%d,%d\r\n", port>>8, port&255))
	var a, b, c, e, high, low uint16
	if n, err := fmt.Sscanf(got, "PORT %d,%d,%d,%d,%d,%d\r\n", &a, &b, &c, &e, &high, &low); err != nil || n != 6 {
		d.t.Fatalf("the server gets %q: %v", got, err)
	}
	if told := packet.IPv4(uint32(a)<<24 | uint32(b)<<16 | uint32(c)<<8 | uint32(e)); told != wan(d.uplink) {
		d.t.Fatalf("the server is told %v", told.Netip())
	}
	return high<<8 | low
}
