package pptp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tapgw/helper"
	"tapgw/helper/internal/fake"
)

// begin starts a conversation of 10.0.0.2 by 198.51.100.1.
func begin() (*fake.Gateway, helper.Conversation) {
	g := fake.New(6, "10.0.0.2:40000", "198.51.100.1:50000", "203.0.113.1:1723")
	return g, Helper{}.Begin(g.Session, g.Reserve)
}

// lengths are those of the control messages (RFC 2637 §2).
var lengths = map[uint16]int{1: 156, 2: 156, 3: 16, 4: 16, 5: 16, 6: 20, 7: 168, 8: 32, 9: 220, 10: 24, 11: 28, 12: 16, 13: 148, 14: 40, 15: 24}

// control is a control message with the words that follow its header, filled up with their number.
func control(kind uint16, words ...uint16) []byte {
	b := bytes.Repeat([]byte{0xee}, lengths[kind])
	binary.BigEndian.PutUint16(b, uint16(len(b)))
	binary.BigEndian.PutUint16(b[2:], 1)
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	binary.BigEndian.PutUint16(b[8:], kind)
	for i, w := range words {
		binary.BigEndian.PutUint16(b[headerLen+2*i:], w)
	}
	return b
}

const ok = connected << 8 // result code and error code

// step is one message of a conversation and what becomes of it.
type step struct {
	to       helper.Direction
	in, want []byte
}

func (s step) check(t *testing.T, c helper.Conversation) {
	t.Helper()
	if got := c.Rewrite(s.to, s.in); !bytes.Equal(got, s.want) {
		t.Errorf("% x became % x", s.in, got)
	}
}

// TestOutgoingCall: the client's identifier 7 is 20001 outside, the server's 9 stays.
func TestOutgoingCall(t *testing.T) {
	g, c := begin()
	for _, s := range []step{
		{helper.Outbound, control(1), control(1)},
		{helper.Inbound, control(2), control(2)},
		{helper.Outbound, control(7, 7, 1), control(7, 20001, 1)},
		{helper.Inbound, control(8, 9, 20001, ok), control(8, 9, 7, ok)},
		{helper.Outbound, control(15, 9), control(15, 9)},
		{helper.Inbound, control(15, 20001), control(15, 7)},
		{helper.Inbound, control(14, 20001), control(14, 7)},
		{helper.Outbound, control(5, 7), control(5, 7)},
		{helper.Outbound, control(12, 7), control(12, 20001)},
		{helper.Inbound, control(13, 9), control(13, 9)},
	} {
		s.check(t, c)
	}
	want := []helper.Related{{Proto: protoGRE, Inside: related(g, 7), Remote: remote(g, 0)}}
	if !slices.Equal(g.Announced, want) {
		t.Errorf("announced %v", g.Announced)
	}
}

func related(g *fake.Gateway, id uint16) netip.AddrPort {
	return netip.AddrPortFrom(g.Inside.Addr(), id)
}
func remote(g *fake.Gateway, id uint16) netip.AddrPort {
	return netip.AddrPortFrom(g.Remote.Addr(), id)
}

// TestConnectedCallsAreAnnounced: with both identifiers, from whichever side the answer comes.
func TestConnectedCallsAreAnnounced(t *testing.T) {
	for name, steps := range map[string][]step{
		"client inside": {{helper.Outbound, control(7, 7), nil}, {helper.Inbound, control(8, 9, 20001, ok), nil}},
		"server inside": {{helper.Inbound, control(9, 9), nil}, {helper.Outbound, control(10, 7, 9, ok), nil}},
	} {
		g, _ := begin()
		var announced []helper.Related
		c := Helper{}.Begin(g.Session, func(r helper.Related) (netip.AddrPort, bool) {
			announced = append(announced, r)
			return g.Reserve(r)
		})
		for _, s := range steps {
			c.Rewrite(s.to, s.in)
		}
		want := []helper.Related{
			{Proto: protoGRE, Inside: related(g, 7), Remote: remote(g, 0)},
			{Proto: protoGRE, Inside: related(g, 7), Remote: remote(g, 9)},
		}
		if !slices.Equal(announced, want) {
			t.Errorf("%s: announced %v", name, announced)
		}
	}
}

// TestIncomingCall: a server inside is called: its identifiers are changed in what it sends.
func TestIncomingCall(t *testing.T) {
	_, c := begin()
	for _, s := range []step{
		{helper.Inbound, control(9, 9), control(9, 9)},
		{helper.Outbound, control(10, 6, 9, ok), control(10, 20000, 9, ok)},
		{helper.Inbound, control(11, 20000), control(11, 6)},
		{helper.Inbound, control(11, 20001), control(11, 20001)}, // never given
		{helper.Outbound, control(13, 6), control(13, 20000)},
		{helper.Outbound, control(13, 5), control(13, 5)}, // never announced
		{helper.Outbound, control(7, 0), control(7, 0)},
	} {
		s.check(t, c)
	}
}

// TestPieces: messages that follow each other in a segment, or go on in the next, are found as long as each begins with what
// is read of it.
func TestPieces(t *testing.T) {
	in := slices.Concat(control(1), control(7, 7), control(7, 7))
	want := slices.Concat(control(1), control(7, 20001), control(7, 20001))
	for cut := range in {
		_, c := begin()
		got := slices.Concat(c.Rewrite(helper.Outbound, in[:cut]), c.Rewrite(helper.Outbound, in[cut:]))
		lost := 0 < cut && cut < headerLen || 156 < cut && cut < 156+namesEnd || 156+168 < cut && cut < 156+168+namesEnd
		if bytes.Equal(got, want) == lost {
			t.Errorf("cut at %d became % x", cut, got)
		}
	}
}

// TestWhatIsNoPPTP is not read, nor what comes after it.
func TestWhatIsNoPPTP(t *testing.T) {
	short := control(7, 7)
	binary.BigEndian.PutUint16(short, headerLen-1)
	cut := control(7, 7)
	binary.BigEndian.PutUint16(cut, namesEnd-1)
	for _, bad := range [][]byte{short, cut, []byte("GET / HTTP/1.0\r\n"), make([]byte, 200), {1}} {
		_, c := begin()
		for _, b := range [][]byte{bad, control(7, 7)} {
			step{helper.Outbound, b, b}.check(t, c)
		}
		done := c.Done()
		if c.Rewrite(helper.Inbound, bad); done || !c.Done() {
			t.Errorf("% x: done %t and then %t", bad, done, c.Done())
		}
	}
}

// TestBackIsWhatItWas: an identifier that the remote repeats is what the inside chose, however many calls there are.
func TestBackIsWhatItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, c := begin()
		for _, id := range rapid.SliceOfNDistinct(rapid.Uint16Min(1), 1, 60, rapid.ID[uint16]).Draw(t, "calls") {
			in := control(7, id, 1)
			out := c.Rewrite(helper.Outbound, in)
			answer := control(8, 9, binary.BigEndian.Uint16(out[headerLen:]), ok)
			if got := c.Rewrite(helper.Inbound, answer); !bytes.Equal(got, control(8, 9, id, ok)) {
				t.Errorf("% x became % x", answer, got)
			}
		}
	})
}

func FuzzRewrite(f *testing.F) {
	f.Add(slices.Concat(control(1), control(7, 7, 1)), control(8, 9, 20001, ok), true)
	f.Add(control(9, 9), control(10, 7, 9, ok), false)
	f.Add(control(15, 9), control(12, 7), true)
	f.Fuzz(func(t *testing.T, first, second []byte, outbound bool) {
		g, c := begin()
		d := fake.Direction(outbound)
		for i, in := range [][]byte{first, second, first} {
			before := bytes.Clone(in)
			to := d
			if i == 1 {
				to = 1 - d
			}
			out := c.Rewrite(to, in)
			if len(out) != len(in) || !bytes.Equal(in, before) {
				t.Errorf("% x became % x, and is % x", before, out, in)
			}
		}
		for _, a := range g.Announced {
			if a.Proto != protoGRE || a.Inside.Addr() != g.Inside.Addr() || a.Inside.Port() == 0 || a.Remote.Addr() != g.Remote.Addr() {
				t.Errorf("announced %v", a)
			}
		}
	})
}
