package tapgw

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// site is where www.example.com is in these tests.
var site = packet.IPv4(0xc6336409) // 198.51.100.9

// aboutName is a question, or its answer, about an address of a name.
func aboutName(t testing.TB, name string, at packet.Addr, response bool) string {
	t.Helper()
	n := dnsmessage.MustNewName(name + ".")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 9, Response: response},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	if response {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: at.Netip().As4()},
		}}
	}
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// resolve lets the inside host ask a server for a name, and the server answer.
func (w *world) resolve(name string, at packet.Addr) {
	w.t.Helper()
	port, uplink := w.open(udpFrame(w.t, inside, 4000, server, 53, aboutName(w.t, name, at, false)))
	w.expect(w.in(udpFrame(w.t, server, 53, wan(uplink), port, aboutName(w.t, name, at, true)), uplink), Deliver, NoReason)
}

func TestNamesAreLearned(t *testing.T) {
	w, book := newWorld(t), NewNames()
	w.g.SetNames(book)
	w.resolve("www.example.com", site)
	if got, _ := book.Domain(inside, site, uint32(start)); got != "www.example.com" {
		t.Errorf("the address is of %q", got)
	}
	if got, ok := book.Domain(inside, server, uint32(start)); ok {
		t.Errorf("the server is %q", got)
	}
}

// TestOnlySessionsWithServersOfNames are kept from the programs, and only while names are wanted.
func TestOnlySessionsWithServersOfNames(t *testing.T) {
	w := newWorld(t)
	helped := func(frame []byte) bool {
		t.Helper()
		var p packet.Packet
		p.Decode(frame[packet.VnetLen:])
		key, _ := nat.KeyOf(&p)
		w.open(frame)
		return w.table.Translation(w.table.FindOut(key)).Helped
	}
	if helped(udpFrame(t, inside, 4000, server, 53, "x")) {
		t.Error("a session is kept from the programs though nobody wants names")
	}
	w.g.SetNames(NewNames())
	for _, c := range []struct {
		frame []byte
		want  bool
	}{
		{udpFrame(t, inside, 4001, server, 53, "x"), true},
		{udpFrame(t, inside, 4002, server, 5353, "x"), false},
		{udpFrame(t, inside, 53, server, 4000, "x"), false},
		{tcpFrame(t, inside, 4003, server, 53, syn, ""), false},
	} {
		if got := helped(c.frame); got != c.want {
			t.Errorf("%x: %v", c.frame, got)
		}
	}
}

// TestNamesAreBelieved: of whom was asked, and undamaged.
func TestNamesAreBelieved(t *testing.T) {
	w, book := newWorld(t), NewNames()
	w.g.SetNames(book)
	port, _ := w.open(udpFrame(t, inside, 4000, server, 53, aboutName(t, "www.example.com", site, false)))
	answer := aboutName(t, "www.example.com", site, true)
	stranger := udpFrame(t, router, 53, wan1, port, answer)
	w.in(stranger, 1)
	damaged := udpFrame(t, server, 53, wan1, port, answer)
	damaged[len(damaged)-1] ^= 1
	w.in(damaged, 1)
	part := udpFrame(t, server, 53, wan1, port, answer)
	part[packet.VnetLen+packet.EthernetLen+6] = 0x20 // more fragments
	w.in(part, 1)
	unasked := udpFrame(t, server, 53, wan1, port, aboutName(t, "bank.example", site, true))
	w.in(unasked, 1)
	if got, ok := book.Domain(inside, site, uint32(start)); ok {
		t.Errorf("the address is of %q", got)
	}
	w.expect(w.in(udpFrame(t, server, 53, wan1, port, answer), 1), Deliver, NoReason)
	if _, ok := book.Domain(inside, site, uint32(start)); !ok {
		t.Error("the true answer was not believed")
	}
}

func TestQuestionsAllocateNothing(t *testing.T) {
	w := newWorld(t)
	w.g.SetNames(NewNames())
	frame := udpFrame(t, inside, 4000, server, 53, aboutName(t, "www.example.com", site, false))
	w.open(frame)
	b := clone(frame)
	if n := testing.AllocsPerRun(100, func() { copy(b, frame); w.out(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
