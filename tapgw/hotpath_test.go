package tapgw

import (
	"testing"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// TestHitsAllocateNothing: the way of every packet but the first of a session.
func TestHitsAllocateNothing(t *testing.T) {
	w := newWorld(t)
	port, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	segment := tcpFrame(t, inside, 4000, server, 80, syn, "")
	tcpPort, _ := w.open(segment)
	echo := echoFrame(t, inside, server, packet.ICMPEcho, 7, "x")
	id, _ := w.open(echo)
	w.expect(w.out(portlessFrame(t, 47, inside, server, "x")), Send, NoReason)
	for name, c := range map[string]struct {
		frame  []byte
		handle func([]byte) Result
		want   Verdict
	}{
		"udp out":   {udpFrame(t, inside, 4000, server, 53, "x"), w.out, Send},
		"tcp out":   {tcpFrame(t, inside, 4000, server, 80, ack, "x"), w.out, Send},
		"echo out":  {echo, w.out, Send},
		"gre out":   {portlessFrame(t, 47, inside, server, "x"), w.out, Send},
		"own":       {udpFrame(t, wan1, 53, server, 4000, "x"), w.out, Send},
		"udp in":    {udpFrame(t, server, 53, wan1, port, "x"), w.first, Deliver},
		"tcp in":    {tcpFrame(t, server, 80, wan1, tcpPort, synAck, ""), w.first, Deliver},
		"echo in":   {echoFrame(t, server, wan1, packet.ICMPEchoReply, id, "x"), w.first, Deliver},
		"gre in":    {portlessFrame(t, 47, server, wan1, "x"), w.first, Deliver},
		"not ours":  {udpFrame(t, server, 53, wan1, port^1, "x"), w.first, GiveBack},
		"dropped":   {udpFrame(t, router, 53, wan1, port, "x"), w.first, Drop},
		"malformed": {make([]byte, 30), w.out, Drop},
	} {
		b := clone(c.frame)
		var res Result
		if n := testing.AllocsPerRun(100, func() { copy(b, c.frame); res = c.handle(b) }); n != 0 || res.Verdict != c.want {
			t.Errorf("%s: %v allocations, verdict %d", name, n, res.Verdict)
		}
	}
}

// first is in by uplink 1.
func (w *world) first(b []byte) Result { return w.in(b, 1) }

// TestOpeningAllocatesNothing, once the tables of the ports an address uses exist.
func TestOpeningAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	w.open(udpFrame(t, inside, 1, server, 53, "x"))
	frame := udpFrame(t, inside, 2, server, 53, "x")
	b := clone(frame)
	const sourcePort = packet.VnetLen + packet.EthernetLen + 20
	next := uint16(2)
	n := testing.AllocsPerRun(1000, func() {
		copy(b, frame)
		b[sourcePort], b[sourcePort+1] = byte(next>>8), byte(next)
		next++
		if res := w.out(b); res.Verdict != Send {
			t.Fatalf("%+v", res)
		}
	})
	if n != 0 || w.table.Stats().Sessions < 1000 {
		t.Errorf("%v allocations for each of %d sessions", n, w.table.Stats().Sessions)
	}
}

// TestWholePacketsTakeNoFragmentLock: a flood of fragments cannot make them wait.
func TestWholePacketsTakeNoFragmentLock(t *testing.T) {
	w := newWorld(t)
	frame := udpFrame(t, inside, 4000, server, 53, "x")
	port, _ := w.open(frame)
	w.g.fromTAP, w.g.fromUplink[1] = nil, nil // whoever touches them panics
	w.expect(w.out(clone(frame)), Send, NoReason)
	w.expect(w.in(udpFrame(t, server, 53, wan1, port, "x"), 1), Deliver, NoReason)
}

func BenchmarkOutbound(b *testing.B) {
	w := newWorld(b)
	benchmark(b, udpFrame(b, inside, 4000, server, 53, "x"), w.out)
}

func BenchmarkInbound(b *testing.B) {
	w := newWorld(b)
	port, _ := w.open(udpFrame(b, inside, 4000, server, 53, "x"))
	benchmark(b, udpFrame(b, server, 53, wan1, port, "x"), w.first)
}

func BenchmarkOpen(b *testing.B) {
	var w *world
	frame := udpFrame(b, inside, 0, server, 53, "x")
	buf := clone(frame)
	for i := 0; b.Loop(); i++ {
		if i%4096 == 0 {
			b.StopTimer()
			w = newWorld(b)
			b.StartTimer()
		}
		copy(buf, frame)
		buf[packet.VnetLen+34], buf[packet.VnetLen+35] = byte(i>>8), byte(i)
		w.g.Outbound(buf, start+nat.Tick(i%8))
	}
}

func benchmark(b *testing.B, frame []byte, handle func([]byte) Result) {
	buf := clone(frame)
	for b.Loop() {
		copy(buf, frame)
		handle(buf)
	}
}
