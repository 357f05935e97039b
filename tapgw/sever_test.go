package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// converseBy opens a TCP session, which must take an uplink, and answers it.
func (w *world) converseBy(port uint16, uplink uint8) {
	w.t.Helper()
	syn := tcpFrame(w.t, inside, port, server, 80, packet.SYN, "")
	outside := w.sent(w.out(syn), syn, uplink)
	answer := tcpFrame(w.t, server, 80, outside.src(), uint16(outside.tcp.SrcPort), packet.SYN|packet.ACK, "")
	w.delivered(w.in(answer, uplink), answer)
	ack := tcpFrame(w.t, inside, port, server, 80, packet.ACK, "")
	w.sent(w.out(ack), ack, uplink)
}

// TestSevered: segments of connections on a dead uplink are answered with a reset at the number that the inside names, and what
// moves or waits on that uplink does so as before.
func TestSevered(t *testing.T) {
	w := newWorld(t)
	w.converseBy(4000, 1)
	syn := tcpFrame(t, inside, 4001, server, 80, packet.SYN, "")
	w.sent(w.out(clone(syn)), clone(syn), 1)
	w.ups[0].State = uplinks.Down
	w.publish()
	data := tcpFrame(t, inside, 4000, server, 80, packet.ACK, "data")
	w.expect(w.out(clone(data)), Send, NoReason) // it waits until it is severed
	w.g.SetSevered(1, true)
	res := w.out(clone(data))
	w.expect(res, Drop, NotSYN)
	sent, reset := look(t, data), look(t, res.Reply)
	if !reset.tcp.RST || reset.tcp.Seq != sent.tcp.Ack || reset.src() != server || reset.dst() != inside {
		t.Errorf("answer %+v", reset.tcp)
	}
	moved := clone(syn)
	w.sent(w.out(moved), moved, 2)
	w.g.SetSevered(1, false)
	w.expect(w.out(data), Send, NoReason)
}

// TestTCPWaits: where all TCP is to wait, a SYN does too.
func TestTCPWaits(t *testing.T) {
	for what, by := range map[OnUplinkDown]uint8{ResetTCP: 2, MoveUnanswered: 2, KeepTCP: 1} {
		w := newWorld(t)
		w.g.SetTCP(TCPOptions{UplinkDown: what})
		syn := tcpFrame(t, inside, 4000, server, 80, packet.SYN, "")
		w.sent(w.out(clone(syn)), clone(syn), 1)
		w.ups[0].State = uplinks.Down
		w.publish()
		if res := w.out(syn); res.Verdict != Send || res.Uplink != by {
			t.Errorf("under %d a SYN goes by %d, want %d", what, res.Uplink, by)
		}
	}
}

// TestResets: one at the number the inside named last, and one at the end of what it was sent where that is another.
func TestResets(t *testing.T) {
	w := newWorld(t)
	key := nat.Key{Inside: inside, Remote: server, InsidePort: 4000, RemotePort: 80, Proto: packet.ProtoTCP}
	for _, c := range []struct {
		s    nat.Severed
		want []uint32
		hop  uint8
	}{
		{nat.Severed{Key: key, Hop: 3, Next: 901, End: 901}, []uint32{901}, 3},
		{nat.Severed{Key: key, Hop: nat.HopDevice, Next: 901, End: 2361}, []uint32{901, 2361}, 0},
	} {
		var got []uint32
		w.g.Resets(&c.s, func(hop uint8, frame []byte) {
			s := look(t, frame)
			got = append(got, s.tcp.Seq)
			if hop != c.hop || !s.tcp.RST || s.src() != server || s.dst() != inside || s.tcp.SrcPort != 80 || s.tcp.DstPort != 4000 {
				t.Errorf("by hop %d: %+v", hop, s.tcp)
			}
		})
		if len(got) != len(c.want) || got[0] != c.want[0] || got[len(got)-1] != c.want[len(c.want)-1] {
			t.Errorf("resets at %v, want %v", got, c.want)
		}
	}
}
