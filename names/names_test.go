package names

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"tapgw/internal/packet"
)

// minute is that of the clock in these tests, whose unit is a second; start is close to where it wraps.
const (
	minute = 60
	start  = uint32(1<<32 - 100)
)

var (
	alice    = packet.IPv4(0x0a000002)
	bob      = packet.IPv4(0x0a000003)
	resolver = packet.IPv4(0x08080808)
	toDNS    = Session{Client: alice, Server: resolver, ClientPort: 4000, ServerPort: 53}
)

// message is one for the tests: records are "name A 192.0.2.1", "name AAAA …" or "name CNAME name", with a time to live.
type message struct {
	dnsmessage.Header
	name    string
	kind    dnsmessage.Type
	ttl     uint32
	records []string
}

func (m message) pack(t testing.TB) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, m.Header)
	b.EnableCompression()
	must(t, b.StartQuestions())
	if m.kind == 0 {
		m.kind = dnsmessage.TypeA
	}
	must(t, b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(m.name + "."), Type: m.kind, Class: dnsmessage.ClassINET}))
	must(t, b.StartAnswers())
	for _, r := range m.records {
		f := strings.Fields(r)
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(f[0] + "."), Class: dnsmessage.ClassINET, TTL: m.ttl}
		switch f[1] {
		case "A":
			must(t, b.AResource(h, dnsmessage.AResource{A: netip.MustParseAddr(f[2]).As4()}))
		case "AAAA":
			must(t, b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(f[2]).As16()}))
		case "CNAME":
			must(t, b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(f[2] + ".")}))
		}
	}
	out, err := b.Finish()
	must(t, err)
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tell lets a client ask for a name and get an answer with these records.
func tell(t testing.TB, b *Book, client packet.Addr, name string, ttl, now uint32, records ...string) {
	t.Helper()
	s := toDNS
	s.Client = client
	m := message{Header: dnsmessage.Header{ID: 7}, name: name}
	b.Query(s, m.pack(t), now)
	m.Response, m.ttl, m.records = true, ttl, records
	b.Answer(s, m.pack(t), now)
}

func addr(s string) packet.Addr { return packet.AddrOf(netip.MustParseAddr(s)) }

// expect fails unless a client's address has that name, "" for none.
func expect(t testing.TB, b *Book, client packet.Addr, a, want string, now uint32) {
	t.Helper()
	if got, ok := b.Domain(client, addr(a), now); got != want || ok != (want != "") {
		t.Errorf("%s is %q, %v, want %q", a, got, ok, want)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, asked string
		records     []string
		addr, want  string
	}{
		{"an address", "www.example", []string{"www.example A 192.0.2.1"}, "192.0.2.1", "www.example"},
		{"of IPv6", "www.example", []string{"www.example AAAA 2001:db8::1"}, "2001:db8::1", "www.example"},
		{"capitals", "WWW.eXample", []string{"www.example A 192.0.2.1"}, "192.0.2.1", "www.example"},
		{"chain", "www.example", []string{"www.example CNAME a.cdn.test", "a.cdn.test CNAME b.cdn.test", "b.cdn.test A 192.0.2.1"}, "192.0.2.1", "www.example"},
		{"several", "www.example", []string{"www.example A 192.0.2.1", "www.example A 192.0.2.2"}, "192.0.2.2", "www.example"},
		{"blocked", "www.example", []string{"www.example A 0.0.0.0"}, "0.0.0.0", ""},
		{"of this host", "www.example", []string{"www.example A 127.0.0.1"}, "127.0.0.1", ""},
		{"IPv4 in IPv6", "www.example", []string{"www.example AAAA ::ffff:192.0.2.1"}, "192.0.2.1", ""},
		{"no host's name", "a b.example", []string{"a A 192.0.2.1"}, "192.0.2.1", ""},
		{"escape sequence", "\x1b[2Jx.example", []string{"a A 192.0.2.1"}, "192.0.2.1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(minute)
			tell(t, b, alice, c.asked, 60, start, c.records...)
			expect(t, b, alice, c.addr, c.want, start)
		})
	}
}

// TestBelieved: only what was asked is answered, by whom it was asked, in time, and once.
func TestBelieved(t *testing.T) {
	query := message{Header: dnsmessage.Header{ID: 7}, name: "www.example"}
	answer := message{Header: dnsmessage.Header{ID: 7, Response: true}, name: "www.example", ttl: 60, records: []string{"www.example A 192.0.2.1"}}
	change := func(f func(s *Session, m *message, later *uint32)) (Session, message, uint32) {
		s, m, later := toDNS, answer, uint32(1)
		f(&s, &m, &later)
		return s, m, later
	}
	for name, f := range map[string]func(s *Session, m *message, later *uint32){
		"another server":      func(s *Session, _ *message, _ *uint32) { s.Server = bob },
		"another port":        func(s *Session, _ *message, _ *uint32) { s.ServerPort = 5353 },
		"another client":      func(s *Session, _ *message, _ *uint32) { s.Client = bob },
		"another client port": func(s *Session, _ *message, _ *uint32) { s.ClientPort++ },
		"another identifier":  func(_ *Session, m *message, _ *uint32) { m.ID++ },
		"another name":        func(_ *Session, m *message, _ *uint32) { m.name = "bank.example" },
		"another type":        func(_ *Session, m *message, _ *uint32) { m.kind = dnsmessage.TypeAAAA },
		"a query":             func(_ *Session, m *message, _ *uint32) { m.Response = false },
		"an error":            func(_ *Session, m *message, _ *uint32) { m.RCode = dnsmessage.RCodeNameError },
		"too late":            func(_ *Session, _ *message, later *uint32) { *later = 20 },
	} {
		t.Run(name, func(t *testing.T) {
			b := New(minute)
			b.Query(toDNS, query.pack(t), start)
			s, m, later := change(f)
			b.Answer(s, m.pack(t), start+later)
			expect(t, b, alice, "192.0.2.1", "", start+later)
			b.Answer(toDNS, answer.pack(t), start+2)
			if later < 20 {
				expect(t, b, alice, "192.0.2.1", "www.example", start+2)
			}
			answer := answer
			answer.records = []string{"www.example A 192.0.2.9"}
			b.Answer(toDNS, answer.pack(t), start+3)
			expect(t, b, alice, "192.0.2.9", "", start+3)
		})
	}
}

// TestSeveralNames: of one address the client's own last name counts, for others the last that anybody was told.
func TestSeveralNames(t *testing.T) {
	b := New(minute)
	carol := packet.IPv4(0x0a000004)
	tell(t, b, alice, "a.example", 60, start, "x A 192.0.2.1")
	tell(t, b, bob, "b.example", 60, start, "x A 192.0.2.1")
	expect(t, b, alice, "192.0.2.1", "a.example", start)
	expect(t, b, carol, "192.0.2.1", "b.example", start)
	tell(t, b, alice, "c.example", 60, start, "x A 192.0.2.1")
	expect(t, b, alice, "192.0.2.1", "c.example", start)
	expect(t, b, bob, "192.0.2.1", "b.example", start)
	expect(t, b, carol, "192.0.2.1", "c.example", start)
}

// TestTimeToLive is bounded below and above, and a grace is given.
func TestTimeToLive(t *testing.T) {
	const half = 30 * 60
	for ttl, until := range map[uint32]uint32{0: 60 + half, 60: 60 + half, 600: 600 + half, 1<<32 - 1: 24*3600 + half} {
		b := New(minute)
		tell(t, b, alice, "www.example", ttl, start, "x A 192.0.2.1")
		expect(t, b, alice, "192.0.2.1", "www.example", start+until-1)
		expect(t, b, alice, "192.0.2.1", "", start+until)
		expect(t, b, bob, "192.0.2.1", "", start+until)
	}
}

func TestSite(t *testing.T) {
	b := New(minute)
	for name, want := range map[string]string{
		"www.shop.example.co.uk": "example.co.uk", "example.com": "example.com", "co.uk": "co.uk", "nas": "nas", "a.nas": "a.nas",
		"me.github.io": "me.github.io", "a.me.github.io": "me.github.io", "1.2.3.4": "1.2.3.4",
	} {
		tell(t, b, alice, name, 60, start, "x A 192.0.2.1")
		if got, ok := b.Site(alice, addr("192.0.2.1"), start); got != want || !ok {
			t.Errorf("the site of %s is %q, %v, want %q", name, got, ok, want)
		}
	}
	if got, ok := b.Site(alice, addr("192.0.2.2"), start); ok || got != "" {
		t.Errorf("an unknown address has the site %q", got)
	}
}

// TestFlood: one client keeps no more than its share, all together no more than there is room for; what is in use stays.
func TestFlood(t *testing.T) {
	b := New(minute)
	tell(t, b, bob, "bank.example", 60, start, "x A 192.0.2.1")
	for i := range 2 * maxEntries / maxFound {
		var records []string
		for j := range maxFound {
			records = append(records, fmt.Sprintf("x A 10.%d.%d.%d", i>>8, i&255, j+1))
		}
		tell(t, b, alice, fmt.Sprintf("n%d.example", i), 60, start, records...)
	}
	if n := b.known.clients[alice].length; n != maxOfClient {
		t.Errorf("one client has %d names, not %d", n, maxOfClient)
	}
	expect(t, b, bob, "192.0.2.1", "bank.example", start)
	for i := range 2 * maxEntries {
		tell(t, b, packet.IPv4(0x0b000000+uint32(i)), "www.example", 60, start, "x A 192.0.2.2")
	}
	k := &b.known
	if k.all.length != maxEntries || len(k.entries) != maxEntries+1 || len(k.byPair) != maxEntries || len(k.clients) != maxEntries || len(k.byAddr) != 1 {
		t.Errorf("%d entries of %d, %d pairs, %d clients, %d addresses", k.all.length, len(k.entries), len(k.byPair), len(k.clients), len(k.byAddr))
	}
}

// TestQuestionsOfOthers: a flood of questions makes only those of some clients forgotten.
func TestQuestionsOfOthers(t *testing.T) {
	b := New(minute)
	m := message{name: "www.example"}
	const clients = 64
	for c := range clients {
		s := toDNS
		s.Client = packet.IPv4(0x0c000000 + uint32(c))
		b.Query(s, m.pack(t), start)
	}
	text := m.pack(t)
	for id := range 1 << 16 {
		text[0], text[1] = byte(id>>8), byte(id)
		b.Query(toDNS, text, start)
	}
	m.Response, m.ttl, m.records = true, 60, []string{"x A 192.0.2.1"}
	learned := 0
	for c := range clients {
		s := toDNS
		s.Client = packet.IPv4(0x0c000000 + uint32(c))
		b.Answer(s, m.pack(t), start)
		if b.known.clients[s.Client] != nil {
			learned++
		}
	}
	if learned < clients/2 {
		t.Errorf("the answers to %d of %d clients were believed", learned, clients)
	}
}

func TestNoAllocations(t *testing.T) {
	b := New(minute)
	m := message{name: "www.example"}
	query := m.pack(t)
	tell(t, b, alice, "www.example", 60, start, "x A 192.0.2.1")
	to := addr("192.0.2.1")
	if n := testing.AllocsPerRun(100, func() { b.Query(toDNS, query, start); b.Site(alice, to, start); b.Site(bob, to, start) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkQuestionAndAnswer(b *testing.B) {
	book := New(minute)
	m := message{name: "www.example.com"}
	query := m.pack(b)
	m.Response, m.ttl, m.records = true, 60, []string{"www.example.com CNAME x.cdn.test", "x.cdn.test A 192.0.2.1", "x.cdn.test A 192.0.2.2"}
	answer := m.pack(b)
	b.ReportAllocs()
	for b.Loop() {
		book.Query(toDNS, query, start)
		book.Answer(toDNS, answer, start)
	}
}

func BenchmarkSite(b *testing.B) {
	book := New(minute)
	tell(b, book, alice, "www.example.com", 60, start, "x A 192.0.2.1")
	a := addr("192.0.2.1")
	for b.Loop() {
		book.Site(alice, a, start)
	}
}

func FuzzMessages(f *testing.F) {
	m := message{name: "www.example"}
	query := m.pack(f)
	m.Response, m.ttl, m.records = true, 60, []string{"www.example CNAME x.example", "x.example A 192.0.2.1", "x.example AAAA 2001:db8::1"}
	f.Add(query, m.pack(f), uint32(time.Minute/time.Second))
	f.Add(query, query, uint32(0))
	f.Fuzz(func(t *testing.T, query, answer []byte, later uint32) {
		b := New(minute)
		b.known.most, b.known.mostOfClient = 4, 2
		for range 3 {
			b.Query(toDNS, query, start)
			b.Answer(toDNS, answer, start)
			b.Answer(Session{Client: bob}, answer, start)
		}
		check(t, &b.known)
		if b.known.all.length > 2 {
			t.Errorf("a client has %d entries", b.known.all.length)
		}
		for p := range b.known.byPair {
			full, ok := b.Domain(p.client, p.addr, start+later)
			site, _ := b.Site(p.client, p.addr, start+later)
			if !strings.HasSuffix(full, site) || ok != (full != "") || strings.ToLower(full) != full || len(full) > maxName {
				t.Errorf("%q of site %q", full, site)
			}
		}
	})
}

// TestManyQuestionsAtOnce: a resolver of many hosts waits for the answers to hundreds of questions.
func TestManyQuestionsAtOnce(t *testing.T) {
	b, m := New(minute), message{name: "www.example"}
	const questions = 200
	for port := range uint16(questions) {
		s := toDNS
		s.ClientPort = port
		b.Query(s, m.pack(t), start)
	}
	m.Response, m.ttl = true, 60
	for port := range uint16(questions) {
		s := toDNS
		s.ClientPort, m.records = port, []string{fmt.Sprintf("x A 192.0.2.%d", port+1)}
		b.Answer(s, m.pack(t), start)
	}
	if n := b.known.all.length; n < questions*9/10 {
		t.Errorf("%d of %d answers were believed", n, questions)
	}
}
