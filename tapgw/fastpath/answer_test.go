package fastpath

import (
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// handshake is a session whose SYN has left, and what answers it.
type handshake struct {
	*rig
	ref nat.Ref
	syn sample
}

// dial opens a session, by its number, with a SYN that Go counts in both tables.
func (r *rig) dial(t *testing.T, n uint32) handshake {
	t.Helper()
	h := handshake{rig: r, syn: sample{
		family: r.family, src: 0x0a000002, dst: 0x08080808, sport: uint16(2000 + n), dport: 443, proto: packet.ProtoTCP,
		flags: packet.SYN, seq: 5000 + n,
	}}
	h.ref = r.open(t, h.syn.key())
	h.goCounts(h.syn, r.table.CountOut)
	h.goCounts(h.syn, r.twin.CountOut)
	return h
}

type countFunc func(r nat.Ref, now nat.Tick, bytes, packets int, p *packet.Packet)

func (h handshake) goCounts(s sample, count countFunc) {
	var p packet.Packet
	p.Decode(s.build())
	count(h.ref, offset, int(p.Len), 1, &p)
}

// answer is the SYN-ACK, with the largest segment size that the uplink carries.
func (h handshake) answer() sample {
	tr := h.table.Translation(h.ref)
	s := h.syn.reply(&tr)
	s.flags, s.seq, s.ack, s.options = packet.SYN|packet.ACK, 9000, h.syn.seq+1, mss(mtu-s.headers())
	return s
}

// mss is the option of a segment size.
func mss(n int) string { return string([]byte{2, 4, byte(n >> 8), byte(n)}) }

// atTick waits for the next tick of the kernel, by which some 60 ms are left.
func atTick(t *testing.T) {
	t.Helper()
	begun, err := kernelTick()
	for now := begun; now == begun && err == nil; {
		now, err = kernelTick()
	}
	labtest.Must(t, err)
}

// TestAnswers: of the answers to SYNs the first of each tick is Go's, the others are hits as Go would have made them.
func TestAnswers(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		first, second := rig.dial(t, 1), rig.dial(t, 2)
		for range 2 {
			atTick(t)
			rig.mustMiss(t, first.ref, false, first.answer().build(), 0)
		}
		rig.compareIn(t, second.answer(), second.ref)
		rig.expectState(t, second.ref, nat.TCPOpening)
		ack := second.syn
		ack.flags, ack.seq, ack.ack = packet.ACK, second.syn.seq+1, 9001
		rig.compareOut(t, ack, second.ref)
		rig.expectState(t, second.ref, nat.TCPEstablished)
		rig.mustMiss(t, second.ref, false, second.answer().build(), 0)
	})
}

// expectState looks at the state once Go has looked at what the programs have shown.
func (r *rig) expectState(t *testing.T, ref nat.Ref, want nat.State) {
	t.Helper()
	for range r.table.Sessions {
	}
	if got := r.table.Translation(ref).State; got != want {
		t.Errorf("state %v, want %v", got, want)
	}
}

// TestAnswersForGo are those that are no hits, however many Go has seen.
func TestAnswersForGo(t *testing.T) {
	eachFamily(t, func(t *testing.T, rig *rig) {
		for n, c := range []struct {
			name   string
			change func(*sample)
		}{
			{"another acknowledgement", func(s *sample) { s.ack++ }},
			{"no acknowledgement", func(s *sample) { s.flags = packet.SYN }},
			{"with a FIN", func(s *sample) { s.flags |= packet.FIN }},
			{"with a RST", func(s *sample) { s.flags |= packet.RST }},
			{"segments that are too large", func(s *sample) { s.options = mss(mtu - s.headers() + 5) }},
			{"no segment size", func(s *sample) { s.options = "" }},
			{"other options first", func(s *sample) { s.options = "\x01\x01\x04\x02" + s.options }},
			{"a segment size cut off", func(s *sample) { s.options = "\x02\x02\x01\x01" }},
		} {
			good, bad := rig.dial(t, uint32(2*n)), rig.dial(t, uint32(2*n+1))
			atTick(t)
			rig.mustMiss(t, good.ref, false, good.answer().build(), 0)
			s := bad.answer()
			c.change(&s)
			t.Run(c.name, func(t *testing.T) { rig.mustMiss(t, bad.ref, false, s.build(), 0) })
			if code, _ := run(t, rig.ingress, good.answer().build(), 0); code != codeHit {
				t.Errorf("behind that, code %d of what needs nothing", int32(code))
			}
		}
	})
}
