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

// out and in are steps without sequence numbers.
func outSeg(flags uint8, want State) step { return step{dir: outbound, flags: flags, want: want} }
func inSeg(flags uint8, want State) step  { return step{dir: inbound, flags: flags, want: want} }

var handshake = []step{
	{outbound, syn, 100, 0, TCPOpening}, {inbound, syn | ack, 900, 101, TCPOpening}, {outbound, ack, 101, 901, TCPEstablished},
}

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

func TestRFC5382_REQ2_TCPStates(t *testing.T) {
	established := func(steps ...step) []step { return append(append([]step{}, handshake...), steps...) }
	for name, steps := range map[string][]step{
		"handshake":       handshake,
		"SYN again":       {outSeg(syn, TCPOpening), outSeg(syn, TCPOpening), inSeg(syn|ack, TCPOpening), inSeg(syn|ack, TCPOpening)},
		"simultaneous":    {outSeg(syn, TCPOpening), inSeg(syn, TCPOpening), outSeg(syn|ack, TCPOpening), inSeg(syn|ack, TCPEstablished)},
		"midstream":       {outSeg(ack, TCPOpening), inSeg(ack, TCPEstablished)},
		"closed by us":    established(outSeg(fin|ack, TCPClosingOut), inSeg(ack, TCPClosingOut), inSeg(fin|ack, TCPClosed), outSeg(ack, TCPClosed)),
		"closed by them":  established(inSeg(fin|ack, TCPClosingIn), outSeg(ack, TCPClosingIn), outSeg(fin|ack, TCPClosed)),
		"data after FIN":  established(outSeg(fin|ack, TCPClosingOut), inSeg(ack, TCPClosingOut), inSeg(ack, TCPClosingOut)),
		"reopened":        established(outSeg(fin|ack, TCPClosingOut), inSeg(fin|ack, TCPClosed), outSeg(syn, TCPOpening), inSeg(syn|ack, TCPOpening), outSeg(ack, TCPEstablished)),
		"reopened by in":  established(outSeg(fin|ack, TCPClosingOut), inSeg(fin|ack, TCPClosed), inSeg(syn, TCPOpening), outSeg(syn|ack, TCPOpening), inSeg(ack, TCPEstablished)),
		"half, then SYN":  established(outSeg(fin|ack, TCPClosingOut), outSeg(syn, TCPOpening)),
		"half, in SYN":    established(outSeg(fin|ack, TCPClosingOut), inSeg(syn, TCPClosingOut)),
		"stray SYN":       established(outSeg(syn, TCPEstablished), inSeg(ack, TCPEstablished)),
		"refused":         {{outbound, syn, 100, 0, TCPOpening}, {inbound, rst | ack, 0, 101, TCPClosed}},
		"refused, forged": {{outbound, syn, 100, 0, TCPOpening}, {inbound, rst | ack, 0, 99, TCPOpening}, {inbound, rst, 0, 101, TCPOpening}},
		"given up":        {outSeg(syn, TCPOpening), outSeg(rst, TCPClosed)},
		"reset by us":     established(outSeg(rst, TCPReset), inSeg(ack, TCPReset)),
		"reset, reopened": established(outSeg(rst, TCPReset), outSeg(syn, TCPOpening)),
		"FIN, then RST":   established(inSeg(fin|ack, TCPClosingIn), outSeg(rst, TCPClosed)),
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, nil)
			play(t, table, mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0)), after(0), steps...)
		})
	}
}

// A RST from outside counts only where the inside expects the next byte; the inside's answer to a false one revives.
func TestRFC5961_BlindResets(t *testing.T) {
	reset := func(seq uint32, want State) step { return step{inbound, rst, seq, 0, want} }
	for name, steps := range map[string][]step{
		"zero":              {reset(0, TCPEstablished)},
		"a million later":   {reset(901+1_000_000, TCPEstablished)},
		"just before":       {reset(900, TCPEstablished)},
		"exact":             {reset(901, TCPReset)},
		"a little later":    {reset(1901, TCPReset)},
		"challenged":        {reset(1901, TCPReset), {outbound, ack, 101, 901, TCPEstablished}},
		"out of window FIN": {{outbound, fin | ack, 101, 901, TCPClosingOut}, reset(5, TCPClosed)},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, nil)
			r := mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0))
			play(t, table, r, after(0), handshake...)
			play(t, table, r, after(0), steps...)
		})
	}
}

// A client that lost its memory uses the same ports again while we think it connected: the challenge converges.
func TestRFC5961_PortReuseConverges(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0))
	play(t, table, r, after(0), handshake...)
	play(t, table, r, after(time.Hour),
		step{outbound, syn, 5000, 0, TCPEstablished}, step{inbound, ack, 901, 101, TCPEstablished},
		step{outbound, rst, 101, 0, TCPReset}, step{outbound, syn, 5000, 0, TCPOpening},
		step{inbound, syn | ack, 70, 5001, TCPOpening}, step{outbound, ack, 5001, 71, TCPEstablished},
		step{inbound, rst, 71, 0, TCPReset})
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
	established := append([]step{}, handshake...)
	closing := append(established[:3:3], outSeg(fin|ack, TCPClosingOut))
	for name, c := range map[string]struct {
		proto uint8
		steps []step
		want  time.Duration
	}{
		"udp":         {protoUDP, nil, 5 * time.Minute},
		"icmp":        {protoICMP, nil, time.Minute},
		"opening":     {protoTCP, handshake[:2], 4 * time.Minute},
		"established": {protoTCP, established, 2*time.Hour + 4*time.Minute},
		"closing":     {protoTCP, closing, 4 * time.Minute},
		"closed":      {protoTCP, append(closing[:4:4], inSeg(fin|ack, TCPClosed)), 4 * time.Second},
		"reset":       {protoTCP, append(established[:3:3], outSeg(rst, TCPReset)), 4 * time.Minute},
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
