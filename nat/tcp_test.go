package nat

import (
	"testing"
	"time"

	"tapgw/internal/packet"
)

const (
	fin = packet.FIN
	syn = packet.SYN
	rst = packet.RST
	ack = packet.ACK
)

// step is one segment of a conversation and the state after it.
type step struct {
	dir      direction
	flags    uint8
	seq, ack uint32
	want     State
}

// outSeg and inSeg are steps at the sequence numbers behind the handshake: the inside sends from 101, the remote from 901.
func outSeg(flags uint8, want State) step { return step{outbound, flags, 101, 901, want} }
func inSeg(flags uint8, want State) step  { return step{inbound, flags, 901, 101, want} }

// acked is the inside's acknowledgement of a FIN, and its own FIN with that.
func acked(flags uint8, want State) step { return step{outbound, flags | ack, 101, 902, want} }

var handshake = []step{
	{outbound, syn, 100, 0, TCPOpening}, {inbound, syn | ack, 900, 101, TCPOpening}, {outbound, ack, 101, 901, TCPEstablished},
}

// established is the steps after a handshake.
func established(steps ...step) []step { return append(handshake[:3:3], steps...) }

// play carries the segments through the session and compares the states.
func play(t *testing.T, table *Table, r Ref, now Tick, steps ...step) {
	t.Helper()
	for i, s := range steps {
		p := segment(s.flags)
		p.Seq, p.Ack = s.seq, s.ack
		p.SeqEnd = s.seq + uint32(s.flags&fin) + uint32(s.flags&syn)>>1
		if table.count(r, now, 60, 1, p, s.dir); table.Translation(r).State != s.want {
			t.Fatalf("step %d (%+v): state %v", i, s, table.Translation(r).State)
		}
	}
}

// playAll carries each conversation through a session of its own.
func playAll(t *testing.T, conversations map[string][]step) {
	t.Helper()
	for name, steps := range conversations {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, nil)
			play(t, table, mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0)), after(0), steps...)
		})
	}
}

func TestRFC5382_REQ2_TCPStates(t *testing.T) {
	playAll(t, map[string][]step{
		"handshake":         handshake,
		"SYN again":         {{outbound, syn, 100, 0, TCPOpening}, {outbound, syn, 100, 0, TCPOpening}, {inbound, syn | ack, 900, 101, TCPOpening}, {inbound, syn | ack, 900, 101, TCPOpening}},
		"midstream":         {outSeg(ack, TCPOpening), inSeg(ack, TCPEstablished)},
		"closed by us":      established(outSeg(fin|ack, TCPClosingOut), inSeg(ack, TCPClosingOut), inSeg(fin|ack, TCPClosingOut), acked(0, TCPClosed)),
		"closed by them":    established(inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn), acked(fin, TCPClosed)),
		"both at once":      established(outSeg(fin|ack, TCPClosingOut), inSeg(fin|ack, TCPClosingOut), inSeg(ack, TCPClosingOut), acked(0, TCPClosed)),
		"FIN again":         established(inSeg(fin|ack, TCPEstablished), inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn), inSeg(fin|ack, TCPClosingIn)),
		"data after FIN":    established(outSeg(fin|ack, TCPClosingOut), inSeg(ack, TCPClosingOut), step{inbound, ack, 950, 102, TCPClosingOut}),
		"data after theirs": established(inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn), step{outbound, ack, 150, 902, TCPClosingIn}),
		"given up":          {{outbound, syn, 100, 0, TCPOpening}, outSeg(rst, TCPClosed)},
		"refused":           {{outbound, syn, 100, 0, TCPOpening}, {inbound, rst | ack, 0, 101, TCPClosed}},
		"refused, forged":   {{outbound, syn, 100, 0, TCPOpening}, {inbound, rst | ack, 0, 99, TCPOpening}, {inbound, rst, 0, 101, TCPOpening}},
		"reset by us":       established(outSeg(rst, TCPReset), inSeg(ack, TCPReset)),
		"FIN, then RST":     established(inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn), outSeg(rst, TCPClosed)),
	})
}

// Both sides send a SYN. That of the remote may come first, where filtering lets it pass a mapping, or in answer.
func TestRFC5382_REQ2a_SimultaneousOpenStates(t *testing.T) {
	out := func(flags uint8, want State) step { return step{outbound, flags, 100, 901, want} }
	in := func(flags uint8, want State) step { return step{inbound, flags, 900, 101, want} }
	playAll(t, map[string][]step{
		"from inside":  {out(syn, TCPOpening), in(syn, TCPOpening), out(syn|ack, TCPOpening), in(syn|ack, TCPEstablished), outSeg(ack, TCPEstablished)},
		"from outside": {in(syn, TCPOpening), out(syn, TCPOpening), in(syn|ack, TCPOpening), out(syn|ack, TCPEstablished), outSeg(ack, TCPEstablished)},
		"answers lost": {out(syn, TCPOpening), in(syn, TCPOpening), in(syn, TCPOpening), out(syn, TCPOpening), out(syn|ack, TCPOpening), in(syn|ack, TCPEstablished)},
	})
}

// An inside that uses addresses and ports again gets through in every state: anew, or by way of the challenge that the
// remote answers with.
func TestRFC5382_REQ2_FiveTupleIsUsedAgain(t *testing.T) {
	anew := []step{{outbound, syn, 5000, 0, TCPOpening}, {inbound, syn | ack, 70, 5001, TCPOpening}, {outbound, ack, 5001, 71, TCPEstablished}}
	exact := append(anew[:3:3], step{inbound, rst, 901, 0, TCPEstablished}, step{inbound, rst, 71, 0, TCPReset})
	join := func(lists ...[]step) (all []step) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	playAll(t, map[string][]step{
		"opening":     join(handshake[:1], exact),
		"answered":    join(handshake[:2], exact),
		"closing out": join(established(outSeg(fin|ack, TCPClosingOut)), exact),
		"closing in":  join(established(inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn)), exact),
		"closed":      join(established(outSeg(fin|ack, TCPClosingOut), inSeg(fin|ack, TCPClosingOut), acked(0, TCPClosed)), exact),
		"reset":       join(established(outSeg(rst, TCPReset)), exact),
		"established, and the remote forgot": join(handshake, []step{
			{outbound, syn, 5000, 0, TCPEstablished}, {inbound, syn | ack, 70, 5001, TCPOpening}, {outbound, ack, 5001, 71, TCPEstablished},
			{inbound, rst, 901, 0, TCPEstablished}, {inbound, rst, 71, 0, TCPReset},
		}),
		"established, and the remote did not": join(handshake, []step{
			{outbound, syn, 5000, 0, TCPEstablished}, {inbound, ack, 901, 101, TCPEstablished}, {outbound, rst, 101, 0, TCPReset},
		}, exact),
		"established, and others answer": join(handshake, []step{
			{outbound, syn, 5000, 0, TCPEstablished}, {inbound, syn | ack, 70, 4711, TCPEstablished}, {inbound, rst, 901, 0, TCPReset},
		}),
		"by the remote, closed": established(outSeg(fin|ack, TCPClosingOut), inSeg(fin|ack, TCPClosingOut), acked(0, TCPClosed),
			step{inbound, syn, 70, 0, TCPOpening}, step{outbound, syn | ack, 5000, 71, TCPOpening}, step{inbound, ack, 71, 5001, TCPEstablished}),
		"by the remote, half closed": established(outSeg(fin|ack, TCPClosingOut), step{inbound, syn, 70, 0, TCPClosingOut}),
		"by the remote, established": established(step{inbound, syn, 70, 0, TCPEstablished}, outSeg(ack, TCPEstablished),
			step{inbound, rst, 901, 0, TCPReset}, step{inbound, syn, 70, 0, TCPOpening}),
	})
}

// A RST from outside counts only exactly where the inside expects the next byte, or where the data of the remote ended. The
// challenge that the inside answers another with passes, and has a genuine remote send the exact one.
func TestRFC5961_BlindResets(t *testing.T) {
	reset := func(seq uint32, want State) step { return step{inbound, rst, seq, 0, want} }
	challenge := step{outbound, ack, 101, 901, TCPEstablished}
	playAll(t, map[string][]step{
		"zero":                   established(reset(0, TCPEstablished)),
		"a million later":        established(reset(901+1_000_000, TCPEstablished)),
		"just before":            established(reset(900, TCPEstablished)),
		"in the window, inexact": established(reset(902, TCPEstablished), reset(1901, TCPEstablished), challenge, reset(901, TCPReset)),
		"exact":                  established(reset(901, TCPReset)),
		"revived":                established(reset(901, TCPReset), challenge),
		"behind data":            established(step{inbound, ack, 2901, 101, TCPEstablished}, reset(2901, TCPReset)),
		"behind forged data":     established(step{inbound, ack, 901 + 1<<20, 101, TCPEstablished}, reset(901+1<<20, TCPEstablished)),
		"inexact, after our FIN": established(outSeg(fin|ack, TCPClosingOut), reset(5, TCPClosed)),
		"inexact, after theirs":  established(inSeg(fin|ack, TCPEstablished), acked(0, TCPClosingIn), reset(5, TCPClosed)),
	})
}

// A blind SYN or SYN-ACK changes nothing, above all not what RSTs are judged by.
func TestRFC5961_BlindSYNs(t *testing.T) {
	for _, flags := range []uint8{syn, syn | ack, syn | fin} {
		playAll(t, map[string][]step{"established": established(
			step{inbound, flags, 5000, 4711, TCPEstablished}, step{inbound, rst, 5001, 0, TCPEstablished},
			step{inbound, rst, 5000, 0, TCPEstablished}, step{inbound, rst, 901, 0, TCPReset},
		)})
	}
}

// A blind FIN does not make RSTs believable, nor the session short-lived: the inside acknowledges a genuine one.
func TestRFC5961_BlindFINs(t *testing.T) {
	playAll(t, map[string][]step{
		"ahead": established(step{inbound, fin | ack, 90_000, 101, TCPEstablished}, outSeg(ack, TCPEstablished),
			step{inbound, rst, 5, 0, TCPEstablished}),
		"behind": established(step{inbound, fin | ack, 500, 101, TCPEstablished}, outSeg(ack, TCPEstablished),
			step{inbound, rst, 5, 0, TCPEstablished}),
		"while we close": established(outSeg(fin|ack, TCPClosingOut), step{inbound, fin | ack, 90_000, 101, TCPClosingOut}),
	})
}

func TestSequenceNumbersAreKept(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0))
	play(t, table, r, after(0), handshake...)
	play(t, table, r, after(0),
		step{outbound, ack, 0x80000100, 950, TCPEstablished}, // half the sequence space ahead is behind
		step{outbound, ack, 5000, 1000, TCPEstablished}, step{outbound, ack, 4000, 940, TCPEstablished})
	if c := &table.counts[outbound][r]; c.seqEnd.Load() != 5000 || c.ack.Load() != 1000 {
		t.Errorf("sequence end %d, acknowledgement %d", c.seqEnd.Load(), c.ack.Load())
	}
}

// alive sweeps at d and reports whether k still has a session.
func alive(table *Table, k Key, d time.Duration) bool {
	sweepAt(table, d)
	return table.FindOut(k) != 0
}

// Each kind of session lives for its lifetime, not less, and little more.
func TestRFC4787_REQ5_RFC5382_REQ5_RFC5508_REQ2_Lifetimes(t *testing.T) {
	closing := established(outSeg(fin|ack, TCPClosingOut))
	for name, c := range map[string]struct {
		proto uint8
		steps []step
		want  time.Duration
	}{
		"udp":         {protoUDP, nil, 5 * time.Minute},
		"icmp":        {protoICMP, nil, time.Minute},
		"other":       {47, nil, 10 * time.Minute},
		"opening":     {protoTCP, handshake[:2], 4 * time.Minute},
		"established": {protoTCP, handshake, 2*time.Hour + 4*time.Minute},
		"closing":     {protoTCP, closing, 4 * time.Minute},
		"closed":      {protoTCP, append(closing[:4:4], inSeg(fin|ack, TCPClosingOut), acked(0, TCPClosed)), 4 * time.Second},
		"reset":       {protoTCP, established(outSeg(rst, TCPReset)), 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, nil)
			k := key(c.proto, 1, web, 80)
			play(t, table, mustOpen(t, table, k, bind1, after(0)), after(0), c.steps...)
			if !alive(table, k, c.want) {
				t.Error("ended too early")
			}
			if alive(table, k, c.want+time.Second) {
				t.Error("lives too long")
			}
		})
	}
}

func TestSetTimeoutsActsOnLiveSessions(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 1, web, 53)
	mustOpen(t, table, k, bind1, after(0))
	to := DefaultTimeouts
	to.UDP = 10 * time.Second
	table.SetTimeouts(to)
	if alive(table, k, 11*time.Second) {
		t.Error("the new timeout is ignored")
	}
}

func TestRFC4787_REQ6_BothDirectionsRefresh(t *testing.T) {
	for _, d := range []direction{outbound, inbound} {
		table := newTable(t, nil)
		k := key(protoUDP, 1, web, 53)
		r := mustOpen(t, table, k, bind1, after(0))
		for m := 1; m <= 20; m++ {
			if !alive(table, k, time.Duration(m)*time.Minute) {
				t.Fatalf("direction %d: ended after %d minutes of traffic", d, m)
			}
			table.count(r, after(time.Duration(m)*time.Minute), 60, 1, datagram, d)
		}
	}
}

// What comes in for a reset session, and the RSTs that answer it, do not keep it.
func TestRFC7857_ResetsDoNotRefresh(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoTCP, 1, web, 80)
	r := mustOpen(t, table, k, bind1, after(0))
	play(t, table, r, after(0), handshake...)
	play(t, table, r, after(0), outSeg(rst, TCPReset))
	for s := range 239 {
		now := after(time.Duration(s) * time.Second)
		play(t, table, r, now, inSeg(ack, TCPReset), outSeg(rst, TCPReset), inSeg(rst, TCPReset))
	}
	if alive(table, k, 4*time.Minute+time.Second) {
		t.Error("a flood keeps a reset session alive")
	}
}

func TestStateNames(t *testing.T) {
	if TCPReset.String() != "reset" || None.String() != "none" || State(200).String() != "unknown" {
		t.Error("wrong names")
	}
}
