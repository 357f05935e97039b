package tapgw

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// lossyPath is a sender, a stream that changes what it sends, and a receiver, with segments lost, repeated and cut anew.
type lossyPath struct {
	t     *rapid.T
	s     stream
	first uint32 // the sender's number of data[0], and the receiver's
	data  []byte // of the sender
	acked uint32 // what the sender knows to have arrived
	want  []byte // what the receiver is to get
	got   []byte // what it has got in order
}

// send gives a part of the data to the stream, as a segment.
func (l *lossyPath) send(from, to int, arrives bool) {
	seq, payload := l.first+uint32(from), l.data[from:to]
	read, ok := l.s.unread(seq, payload)
	if !ok {
		l.t.Fatal("what follows the data before waits for something")
	}
	if fresh := payload[read:]; len(fresh) > 0 {
		instead := l.instead(fresh)
		if !l.s.took(fresh, instead) {
			instead = fresh
		}
		l.want = append(l.want, instead...)
	}
	if at, out := l.s.render(seq, payload); arrives {
		l.receive(at, out)
	}
}

// instead is what a helper might make of a payload.
func (l *lossyPath) instead(payload []byte) []byte {
	if rapid.Bool().Draw(l.t, "stays") {
		return payload
	}
	at := rapid.IntRange(0, len(payload)-1).Draw(l.t, "at")
	end := rapid.IntRange(at, len(payload)).Draw(l.t, "end")
	put := rapid.SliceOfN(rapid.ByteRange('A', 'C'), 0, 6).Draw(l.t, "put")
	out := append(append(bytes.Clone(payload[:at]), put...), payload[end:]...)
	if len(out) == 0 {
		return payload
	}
	return out
}

// receive takes what is new of a segment. What it has it does not look at, and that may be something else: of what the
// receiver has acknowledged the stream remembers nothing, even if the sender has not heard of it.
func (l *lossyPath) receive(at uint32, payload []byte) {
	from := int(int32(at - l.first))
	if from > len(l.got) {
		l.t.Fatalf("%d bytes at %d, behind %d", len(payload), from, len(l.got))
	}
	if end := from + len(payload); end > len(l.got) {
		l.got = append(l.got, payload[len(l.got)-from:]...)
	}
}

// ack tells the sender what has arrived, unless that is lost.
func (l *lossyPath) ack(arrives bool) {
	number := l.first + uint32(len(l.got))
	ack := l.s.toSender(number, false)
	l.s.acknowledged(number)
	if before(ack, l.first+l.acked) {
		l.t.Fatalf("%d is acknowledged behind %d", ack-l.first, l.acked)
	}
	if arrives {
		l.acked = ack - l.first
	}
}

// TestStreams: whatever is lost, repeated or cut anew, the receiver gets what the helper made of the data, and the sender
// learns that all of it arrived.
func TestStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &lossyPath{t: t, first: rapid.SampledFrom([]uint32{0, 1000, 1<<32 - 20, 1<<31 - 9}).Draw(t, "first")}
		l.data = rapid.SliceOfN(rapid.ByteRange('a', 'z'), 1, 200).Draw(t, "data")
		l.s.begin(l.first)
		sent := 0
		for step := 0; step < 400 && (int(l.acked) < len(l.data) || sent < len(l.data)); step++ {
			from := rapid.IntRange(int(l.acked), sent).Draw(t, "from")
			to := min(len(l.data), from+rapid.IntRange(1, 40).Draw(t, "length"))
			if step > 300 { // at last nothing is lost
				from, to = int(l.acked), len(l.data)
			}
			arrives := step > 300 || rapid.IntRange(0, 3).Draw(t, "arrives") > 0
			if before(l.first+uint32(len(l.got)), l.s.toReceiver(l.first+uint32(from))) {
				arrives = false // a receiver would keep it for later
			}
			l.send(from, to, arrives)
			sent = max(sent, to)
			l.ack(step > 300 || rapid.Bool().Draw(t, "ack arrives"))
		}
		if !bytes.Equal(l.got, l.want) {
			t.Fatalf("%q became %q, not %q", l.data, l.got, l.want)
		}
		if int(l.acked) != len(l.data) || len(l.s.splices) > 0 {
			t.Fatalf("%d of %d bytes are acknowledged, %d splices are left", l.acked, len(l.data), len(l.s.splices))
		}
	})
}

// A place is never without bytes, or it could be on either side of a segment's end.
func TestSplicesHaveBytes(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"PORT 1\r\n", "PORT 11\r\n"}, {"PORT 11\r\n", "PORT 1\r\n"}, {"a", "aa"}, {"aa", "a"}, {"abc", "b"}, {"x", "yyyy"}, {"ab", "b"},
	} {
		var s stream
		s.begin(100)
		if !s.took([]byte(c.from), []byte(c.to)) || len(s.splices) != 1 {
			t.Errorf("%q for %q: %+v", c.to, c.from, s.splices)
			continue
		}
		if p := s.splices[0]; p.from == 0 || len(p.to) == 0 {
			t.Errorf("%q for %q: %+v", c.to, c.from, p)
		}
		if at, out := s.render(100, []byte(c.from)); at != 100 || string(out) != c.to {
			t.Errorf("%q for %q is %q at %d", c.to, c.from, out, at)
		}
	}
}

func TestStreamsRememberLittle(t *testing.T) {
	var s stream
	s.begin(0)
	for i := range 100 {
		s.took([]byte("a"), []byte("bcd"))
		if len(s.splices) > maxSplices {
			t.Fatalf("%d splices after %d changes", len(s.splices), i+1)
		}
	}
	if s.took([]byte("a"), make([]byte, maxSpliced+1)) {
		t.Error("a splice of more than the bound is remembered")
	}
	s.acknowledged(1 << 30) // of what was never sent
	if len(s.splices) != maxSplices {
		t.Error("a wild acknowledgement made it forget")
	}
	if _, ok := s.unread(s.next+1, []byte("x")); ok {
		t.Error("data behind a gap are read")
	}
}
