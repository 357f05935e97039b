package icmp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"tapgw/probe"
)

var (
	source = netip.MustParseAddr("192.0.2.2")
	target = netip.MustParseAddr("203.0.113.1")
	router = netip.MustParseAddr("192.0.2.1")
)

func newSocket(t testing.TB) (*socket, *echo) {
	t.Helper()
	s := &socket{link: probe.Link{Source: source}, id: firstID + 5, seq: 65535, waiting: make(map[uint16]*echo)}
	e, err := s.prepare(target)
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

// reply is what the target sends back.
func reply(e *echo) []byte {
	m := append([]byte(nil), e.request...)
	m[0] = typeReply
	return m
}

// quote is an ICMP error about the request, with as little of it as RFC 792 demands.
func quote(e *echo, kind, code byte) []byte {
	m := make([]byte, minError)
	m[0], m[1] = kind, code
	ip := m[headerLen:]
	ip[0], ip[9] = plainIPv4, protoICMP
	copy(ip[12:], source.AsSlice())
	copy(ip[16:], e.dst.AsSlice())
	copy(m[quotedEcho:], e.request)
	return m
}

// Only what truly belongs to the request is an answer; everything else leaves the request waiting.
func TestDeliver(t *testing.T) {
	spoiled := func(m []byte, at int) []byte { m[at] ^= 1; return m }
	for _, c := range []struct {
		name    string
		message func(e *echo) []byte
		from    netip.Addr
		want    string // "", "reply", or the error
	}{
		{"reply", reply, target, "reply"},
		{"reply of another host", reply, router, ""},
		{"other identifier", func(e *echo) []byte { return spoiled(reply(e), 5) }, target, ""},
		{"other sequence number", func(e *echo) []byte { return spoiled(reply(e), 7) }, target, ""},
		{"other payload", func(e *echo) []byte { return spoiled(reply(e), 20) }, target, ""},
		{"payload cut off", func(e *echo) []byte { return reply(e)[:headerLen] }, target, ""},
		{"payload longer", func(e *echo) []byte { return append(reply(e), 0) }, target, ""},
		{"our own request", func(e *echo) []byte { return e.request }, target, ""},
		{"empty", func(*echo) []byte { return nil }, target, ""},
		{"unreachable", func(e *echo) []byte { return quote(e, typeUnreachable, 1) }, router, "host unreachable, says 192.0.2.1"},
		{"prohibited", func(e *echo) []byte { return quote(e, typeUnreachable, 13) }, router, "administratively prohibited, says 192.0.2.1"},
		{"odd code", func(e *echo) []byte { return quote(e, typeUnreachable, 99) }, router, "unreachable (code 99), says 192.0.2.1"},
		{"loop", func(e *echo) []byte { return quote(e, typeTimeExceeded, 0) }, router, "time to live exceeded, probably a routing loop, says 192.0.2.1"},
		{"redirect", func(e *echo) []byte { return quote(e, 5, 0) }, router, ""},
		{"error about another source", func(e *echo) []byte { return spoiled(quote(e, 3, 1), headerLen+15) }, router, ""},
		{"error about another target", func(e *echo) []byte { return spoiled(quote(e, 3, 1), headerLen+19) }, router, ""},
		{"error about UDP", func(e *echo) []byte { return spoiled(quote(e, 3, 1), headerLen+9) }, router, ""},
		{"error with forged checksum", func(e *echo) []byte { return spoiled(quote(e, 3, 1), quotedEcho+2) }, router, ""},
		{"error cut off", func(e *echo) []byte { return quote(e, 3, 1)[:minError-1] }, router, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, e := newSocket(t)
			s.deliver(c.message(e), c.from, time.Now())
			got := ""
			select {
			case a := <-e.answer:
				if got = "reply"; a.err != nil {
					got = a.err.Error()
				}
			default:
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if left := len(s.waiting); (left == 0) != (c.want != "") {
				t.Errorf("%d requests wait afterwards", left)
			}
		})
	}
}

func TestSecondReplyIsIgnored(t *testing.T) {
	s, e := newSocket(t)
	for range 3 {
		s.deliver(reply(e), target, time.Now())
	}
	if n := len(e.answer); n != 1 {
		t.Errorf("%d answers", n)
	}
}

func FuzzDeliver(f *testing.F) {
	_, e := newSocket(f)
	f.Add(reply(e))
	f.Add(quote(e, typeUnreachable, 1))
	f.Add(quote(e, typeTimeExceeded, 0)[:minError-1])
	f.Fuzz(func(t *testing.T, message []byte) {
		s, e := newSocket(t)
		s.deliver(message, target, time.Now())
		if len(e.answer) > 0 {
			t.Error("a message that cannot know the random payload was accepted")
		}
	})
}

// The filter runs in the kernel on the whole datagram, so it is tried with headers of both lengths.
func TestFilter(t *testing.T) {
	s, e := newSocket(t)
	program, ok := bpf.Disassemble(filter(s.id))
	if !ok {
		t.Fatal("cannot disassemble the filter")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(m []byte, at int) []byte { binary.BigEndian.PutUint16(m[at:], s.id+1); return m }
	for name, c := range map[string]struct {
		message []byte
		pass    bool
	}{
		"reply":                {reply(e), true},
		"foreign reply":        {foreign(reply(e), 4), false},
		"request":              {e.request, false},
		"unreachable":          {quote(e, typeUnreachable, 1), true},
		"time exceeded":        {quote(e, typeTimeExceeded, 0), true},
		"redirect":             {quote(e, 5, 0), false},
		"foreign unreachable":  {foreign(quote(e, typeUnreachable, 1), quotedEcho+4), false},
		"unreachable, cut off": {quote(e, typeUnreachable, 1)[:headerLen+20], false},
		"nothing":              {nil, false},
	} {
		for _, options := range []int{0, 40} {
			datagram := make([]byte, 20+options, 200)
			datagram[0] = 0x40 | byte(len(datagram)/4)
			n, err := vm.Run(append(datagram, c.message...))
			if err != nil || (n > 0) != c.pass {
				t.Errorf("%s with %d bytes of options: passes %d bytes, %v", name, options, n, err)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	seen := make(map[uint16]bool)
	for range 1000 {
		id, _ := identity()
		if id < 32768 || id > 60999 {
			t.Fatalf("identifier %d is not in the ephemeral range", id)
		}
		seen[id] = true
	}
	if len(seen) < 900 {
		t.Errorf("only %d different identifiers of 1000", len(seen))
	}
}
