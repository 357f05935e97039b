package icmp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"tapgw/probe"
)

// ends are the addresses of a test.
type ends struct{ source, target, router netip.Addr }

var (
	endsV4 = ends{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("192.0.2.1")}
	endsV6 = ends{netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8:f::1"), netip.MustParseAddr("2001:db8:1::1")}
)

func newSocket(t testing.TB, a ends) (*socket, *echo) {
	t.Helper()
	s := &socket{link: probe.Link{Source: a.source}, id: firstID + 5, seq: 65535, waiting: make(map[uint16]*echo)}
	e, err := s.prepare(a.target)
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

// reply is what the target sends back.
func reply(e *echo) []byte {
	m := append([]byte(nil), e.request...)
	m[0] = protocolOf(e.dst).reply
	return m
}

// quote is an error about the request, with as little of it as must be there.
func (a ends) quote(e *echo, kind, code byte) []byte {
	p := protocolOf(e.dst)
	m := make([]byte, p.quotedEcho()+p.proof)
	m[0], m[1] = kind, code
	ip := m[headerLen:]
	ip[0], ip[p.numberAt] = p.version, p.number
	copy(ip[p.source:], append(a.source.AsSlice(), e.dst.AsSlice()...))
	copy(m[p.quotedEcho():], e.request)
	return m
}

// Only what truly belongs to the request is an answer; everything else leaves the request waiting.
func TestDeliver(t *testing.T) {
	for _, a := range []ends{endsV4, endsV6} {
		p := protocolOf(a.source)
		unreachable, exceeded := p.unreachable, p.timeExceeded
		spoiled := func(m []byte, at int) []byte { m[at] ^= 1; return m }
		quote := func(kind, code byte) func(e *echo) []byte {
			return func(e *echo) []byte { return a.quote(e, kind, code) }
		}
		spoilt := func(at int) func(e *echo) []byte {
			return func(e *echo) []byte { return spoiled(a.quote(e, unreachable, 1), at) }
		}
		says := ", says " + a.router.String()
		for _, c := range []struct {
			name    string
			message func(e *echo) []byte
			from    netip.Addr
			want    string // "", "reply", or the error
		}{
			{"reply", reply, a.target, "reply"},
			{"reply of another host", reply, a.router, ""},
			{"other identifier", func(e *echo) []byte { return spoiled(reply(e), 5) }, a.target, ""},
			{"other sequence number", func(e *echo) []byte { return spoiled(reply(e), 7) }, a.target, ""},
			{"other payload", func(e *echo) []byte { return spoiled(reply(e), headerLen+cookieLen-1) }, a.target, ""},
			{"payload cut off", func(e *echo) []byte { return reply(e)[:headerLen] }, a.target, ""},
			{"payload longer", func(e *echo) []byte { return append(reply(e), 0) }, a.target, ""},
			{"our own request", func(e *echo) []byte { return e.request }, a.target, ""},
			{"empty", func(*echo) []byte { return nil }, a.target, ""},
			{"unreachable", quote(unreachable, 1), a.router, p.describe(1) + says},
			{"odd code", quote(unreachable, 99), a.router, "unreachable (code 99)" + says},
			{"loop", quote(exceeded, 0), a.router, "time to live exceeded, probably a routing loop" + says},
			{"redirect", quote(5, 0), a.router, ""},
			{"error about another source", spoilt(headerLen + p.source + 1), a.router, ""},
			{"error about another target", spoilt(headerLen + p.quotedIP - 1), a.router, ""},
			{"error about UDP", spoilt(headerLen + p.numberAt), a.router, ""},
			{"error about another request", spoilt(p.quotedEcho() + p.proof - 3), a.router, ""},
			{"error cut off", func(e *echo) []byte { return a.quote(e, unreachable, 1)[:p.quotedEcho()+p.proof-1] }, a.router, ""},
		} {
			t.Run(p.network+" "+c.name, func(t *testing.T) {
				s, e := newSocket(t, a)
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
}

// The checksum that an error of ICMP quotes covers the random payload that it need not quote.
func TestForgedChecksum(t *testing.T) {
	s, e := newSocket(t, endsV4)
	m := endsV4.quote(e, icmpV4.unreachable, 1)
	m[icmpV4.quotedEcho()+2] ^= 1
	if s.deliver(m, endsV4.router, time.Now()); len(e.answer) > 0 {
		t.Error("accepted")
	}
}

func TestSecondReplyIsIgnored(t *testing.T) {
	s, e := newSocket(t, endsV4)
	for range 3 {
		s.deliver(reply(e), endsV4.target, time.Now())
	}
	if n := len(e.answer); n != 1 {
		t.Errorf("%d answers", n)
	}
}

func FuzzDeliver(f *testing.F) {
	for _, a := range []ends{endsV4, endsV6} {
		_, e := newSocket(f, a)
		p := protocolOf(a.source)
		f.Add(reply(e))
		f.Add(a.quote(e, p.unreachable, 1))
		f.Add(a.quote(e, p.timeExceeded, 0)[:p.quotedEcho()+p.proof-1])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, a := range []ends{endsV4, endsV6} {
			s, e := newSocket(t, a)
			s.deliver(message, a.target, time.Now())
			if len(e.answer) > 0 {
				t.Error("a message that cannot know the random payload was accepted")
			}
		}
	})
}

// The filter runs in the kernel on the whole datagram, so it is tried with headers of both lengths.
func TestFilter(t *testing.T) {
	s, e := newSocket(t, endsV4)
	quote, quotedEcho := endsV4.quote, icmpV4.quotedEcho()
	typeUnreachable, typeTimeExceeded := icmpV4.unreachable, icmpV4.timeExceeded
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
