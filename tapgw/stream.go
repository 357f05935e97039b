package tapgw

import "bytes"

// Bounds of what one direction of a session remembers.
const (
	maxSplices = 4       // places not yet acknowledged
	maxSpliced = 4 << 10 // bytes put in at one of them
)

// splice is a place in a stream where other bytes were put.
type splice struct {
	seq, from uint32 // where it begins, and how many bytes were taken out there, in the sender's numbers; never none
	to        []byte // what was put in; never empty
}

func (s *splice) end() uint32 { return s.seq + s.from }

// stream is one direction of a TCP session whose payload a helper may change. The sender's sequence numbers and the
// receiver's differ by what has been put in more than taken out; a changed place is remembered until it is acknowledged, so
// that it is changed in the same way when it is sent again, however it is cut then.
type stream struct {
	begun   bool
	next    uint32   // behind what the helper has read, in the sender's numbers
	offset  uint32   // from the sender's numbers to the receiver's, before the first splice
	splices []splice // by seq
}

// begin starts at the first byte of a connection.
func (s *stream) begin(seq uint32) { *s = stream{begun: true, next: seq} }

// plain reports whether both ends use the same numbers.
func (s *stream) plain() bool { return s.offset == 0 && len(s.splices) == 0 }

// before reports whether a sequence number lies before another (RFC 9293 §3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// unread is how many bytes of a payload that begins at seq have been read before. False when some in front of it have not
// come yet: what comes in their place may have another length.
func (s *stream) unread(seq uint32, payload []byte) (read int, ok bool) {
	if !s.begun {
		s.begin(seq)
	}
	if before(s.next, seq) {
		return 0, false
	}
	return int(min(s.next-seq, uint32(len(payload)))), true
}

// took notes that the helper has read a payload and gave another for it. False when there is no room to remember that: the
// payload stays as it was.
func (s *stream) took(payload, instead []byte) bool {
	at := s.next
	s.next += uint32(len(payload))
	if bytes.Equal(payload, instead) {
		return true
	}
	first, fromEnd, toEnd := differing(payload, instead)
	if toEnd == first || toEnd-first > maxSpliced || len(s.splices) == maxSplices {
		return false
	}
	s.splices = append(s.splices, splice{at + uint32(first), uint32(fromEnd - first), bytes.Clone(instead[first:toEnd])})
	return true
}

// passed notes what nobody has to read.
func (s *stream) passed(end uint32) {
	if !s.begun || before(s.next, end) {
		s.begun, s.next = true, end
	}
}

// differing is where two payloads begin and end to differ, with at least a byte of each in between if there is one: a place
// without bytes could be on either side of a segment's end.
func differing(a, b []byte) (first, aEnd, bEnd int) {
	shorter := min(len(a), len(b))
	for first < shorter-1 && a[first] == b[first] {
		first++
	}
	aEnd, bEnd = len(a), len(b)
	for aEnd > first+1 && bEnd > first+1 && a[aEnd-1] == b[bEnd-1] {
		aEnd, bEnd = aEnd-1, bEnd-1
	}
	return first, aEnd, bEnd
}

// render makes the payload that the sender has at seq the one that the receiver gets, and says at which number. A place that
// a segment ends in is sent as a whole, one that it begins in not at all: both have been sent before.
func (s *stream) render(seq uint32, payload []byte) (at uint32, out []byte) {
	end := seq + uint32(len(payload))
	at, out = s.toReceiver(seq), payload
	changed := false
	for i := range s.splices {
		c := &s.splices[i]
		if !before(seq, c.end()) || !before(c.seq, end) {
			continue
		}
		if !changed {
			changed, out = true, nil
		}
		if before(seq, c.seq) {
			out = append(out, payload[:c.seq-seq]...)
		}
		if !before(c.seq, seq) {
			out = append(out, c.to...)
		}
		payload = payload[min(c.end()-seq, uint32(len(payload))):]
		seq = c.end()
	}
	if changed {
		out = append(out, payload...)
	}
	return at, out
}

// toReceiver is the receiver's number of a sender's. A number within a splice becomes that of its end.
func (s *stream) toReceiver(seq uint32) uint32 {
	offset := s.offset
	for i := range s.splices {
		c := &s.splices[i]
		switch {
		case !before(seq, c.end()):
			offset += uint32(len(c.to)) - c.from
		case before(c.seq, seq):
			return c.end() + offset + uint32(len(c.to)) - c.from
		}
	}
	return seq + offset
}

// toSender is the sender's number of a receiver's, as in acknowledgements. A number within a splice becomes that of its
// beginning, or of its end.
func (s *stream) toSender(ack uint32, up bool) uint32 {
	offset := s.offset
	for i := range s.splices {
		c := &s.splices[i]
		first := c.seq + offset
		if !before(first, ack) {
			break
		}
		if before(ack, first+uint32(len(c.to))) {
			if up {
				return c.end()
			}
			return c.seq
		}
		offset += uint32(len(c.to)) - c.from
	}
	return ack - offset
}

// acknowledged forgets the splices that the receiver has got, by its own numbers.
func (s *stream) acknowledged(ack uint32) {
	if before(s.toReceiver(s.next), ack) {
		return // of what was never sent
	}
	for len(s.splices) > 0 {
		c := &s.splices[0]
		if before(ack, c.seq+s.offset+uint32(len(c.to))) {
			return
		}
		s.offset += uint32(len(c.to)) - c.from
		s.splices = s.splices[1:]
	}
	s.splices = nil
}
