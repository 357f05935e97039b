package nat

import (
	"encoding/binary"
	"testing"

	"tapgw/internal/packet"
)

// quoting makes a whole error of code 4 about a packet with the words of TCP's ports and number, and says if it is plausible.
func quoting(t *testing.T, table *Table, r Ref, mtu, length uint16, seq uint32) bool {
	t.Helper()
	tr := table.Translation(r)
	f := sent(&tr)
	f.payload = make([]byte, 8)
	quoted := f.packet(t)[:28]
	binary.BigEndian.PutUint16(quoted[2:], length)
	if tr.Proto == protoTCP {
		binary.BigEndian.PutUint32(quoted[24:], seq)
	}
	frame, p := report(t, router, tr.Outside, 3, quoted, nil)
	frame[p.L4+1] = codeFragNeeded
	binary.BigEndian.PutUint16(frame[p.L4+6:], mtu)
	repairSums(frame, p)
	return table.Plausible(frame, p, r, &tr)
}

// TestFault35_PlausibleMTU: no error tells a path MTU that is too small to be true. One without any speaks of a large packet.
func TestFault35_PlausibleMTU(t *testing.T) {
	table := newTable(t, nil)
	r := mustOpen(t, table, key(protoUDP, 4000, web, 53), bind1, after(0))
	for _, c := range []struct {
		mtu, length uint16
		want        bool
	}{
		{68, 1500, false}, {1, 1500, false}, {551, 1500, false}, {552, 1500, true}, {1280, 1500, true}, {1492, 1500, true}, {65535, 1500, true},
		{0, 1500, true}, {0, 553, true}, {0, 552, false}, {0, 100, false},
	} {
		if got := quoting(t, table, r, c.mtu, c.length, 0); got != c.want {
			t.Errorf("MTU %d about %d bytes: %t", c.mtu, c.length, got)
		}
	}
	tr := table.Translation(r)
	for _, c := range []struct {
		typ, code uint8
		mtu       uint16
	}{{3, 3, 0}, {3, 1, 68}, {11, 0, 68}, {12, 4, 68}} { // the word means something else there
		frame, p := report(t, router, tr.Outside, c.typ, sent(&tr).packet(t), nil)
		frame[p.L4+1] = c.code
		binary.BigEndian.PutUint16(frame[p.L4+6:], c.mtu)
		repairSums(frame, p)
		if !table.Plausible(frame, p, r, &tr) {
			t.Errorf("type %d, code %d is refused", c.typ, c.code)
		}
	}
	frame, p := report(t, router, tr.Outside, 3, sent(&tr).packet(t), nil)
	frame[p.L4+2]++
	if table.Plausible(frame, p, r, &tr) {
		t.Error("a damaged one is believed")
	}
}

// TestFault35_PlausibleMTUOfIPv6: the least MTU is that of any link (RFC 8201 §4).
func TestFault35_PlausibleMTUOfIPv6(t *testing.T) {
	for mtu, want := range map[uint32]bool{0: false, 68: false, 1279: false, 1280: true, 1480: true} {
		quoted := flowV6{proto: protoUDP, src: v6(out1), dst: v6(web), srcPort: 777, dstPort: 53, first: 60, payload: []byte("payload")}.packet(t)
		frame, p := reportV6(t, v6(router), v6(out1), packet.ICMPv6TooBig, mtu, quoted)
		q, ok := parseQuote(frame, p)
		if !ok || plausibleMTU(frame, p, &q) != want {
			t.Errorf("MTU %d: quote %t, want %t", mtu, ok, want)
		}
	}
}

// TestRFC5927_QuotedNumbers: an error about a TCP segment that the inside cannot have under way is not believed.
func TestRFC5927_QuotedNumbers(t *testing.T) {
	table := newTable(t, nil)
	begin := func(port uint16) Ref { return mustOpen(t, table, key(protoTCP, port, web, 80), bind1, after(0)) }
	check := func(name string, r Ref, seq uint32, want bool) {
		t.Helper()
		if quoting(t, table, r, 1400, 1500, seq) != want {
			t.Errorf("%s: number %d: %t", name, seq, !want)
		}
	}
	r := begin(1)
	check("nothing sent", r, 0, false)
	play(t, table, r, after(0), step{outbound, syn, 0xffffff00, 0, TCPOpening})
	for _, seq := range []uint32{0xffffff00, 0xffffff01, 0xffffff01 - quotedSlack} {
		check("SYN", r, seq, true)
	}
	for _, seq := range []uint32{0xffffff02, 0, 0xffffff00 - quotedSlack} {
		check("SYN", r, seq, false)
	}
	data := func(seq, ack, n uint32) {
		p := segment(packet.ACK)
		p.Seq, p.SeqEnd, p.Ack = seq, seq+n, ack
		table.CountOut(r, after(0), 60, 1, p)
	}
	answer := func(seq, ack uint32) {
		p := segment(packet.ACK)
		p.Seq, p.SeqEnd, p.Ack = seq, seq, ack
		table.CountIn(r, after(0), 60, 1, p)
	}
	play(t, table, r, after(0), step{inbound, syn | ack, 900, 0xffffff01, TCPOpening}, step{outbound, ack, 0xffffff01, 901, TCPEstablished})
	data(0xffffff01, 901, 1000) // across the wrap
	for _, seq := range []uint32{0xffffff00, 0xffffff01, 0xffffffff, 0, 745} {
		check("data", r, seq, true)
	}
	for _, seq := range []uint32{0xfffffeff, 0x80000000, 1000, 0x7fffffff} {
		check("data", r, seq, false)
	}
	answer(901, 100) // the part up to 100 has arrived
	for seq, want := range map[uint32]bool{98: false, 99: true, 100: true, 745: true, 746: false, 0xffffff80: false} {
		check("acknowledged", r, seq, want)
	}
	answer(901, 5000) // more than was sent
	check("forged acknowledgement", r, 700, true)
	check("forged acknowledgement", r, 746, false)
}

// TestRFC5927_HelpedNumbers: where a helper makes the numbers of both sides differ, an error about what is close is believed.
func TestRFC5927_HelpedNumbers(t *testing.T) {
	table := newTable(t, nil)
	b := bind1
	b.Helped = true
	r := mustOpen(t, table, key(protoTCP, 1, web, 21), b, after(0))
	play(t, table, r, after(0), handshake...)
	for seq, want := range map[uint32]bool{101: true, 140: true, 60: true, 101 + quotedSlack: true, 1 << 30: false, 1 << 31: false} {
		if quoting(t, table, r, 1400, 1500, seq) != want {
			t.Errorf("number %d: %t", seq, !want)
		}
	}
}
