package dns

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"tapgw/probe"
)

// reply answers a query with some addresses.
func reply(t testing.TB, query []byte, code dnsmessage.RCode, list ...string) []byte {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		t.Fatal(err)
	}
	m.Response, m.RCode = true, code
	for _, text := range list {
		a, h := netip.MustParseAddr(text), dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET}
		if a.Is4() {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		} else {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func question(t testing.TB) []byte {
	t.Helper()
	b, err := query(4711, "dns.Google", false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnswers(t *testing.T) {
	q := question(t)
	wanted, any := probe.Target{Name: "dns.google", Answer: netip.MustParseAddr("8.8.8.8")}, probe.Target{Name: "dns.google"}
	for name, c := range map[string]struct {
		message []byte
		target  probe.Target
		wrong   bool
		err     string
	}{
		"right":        {reply(t, q, 0, "8.8.4.4", "8.8.8.8"), wanted, false, ""},
		"any":          {reply(t, q, 0, "8.8.4.4"), any, false, ""},
		"lie":          {reply(t, q, 0, "8.8.4.4"), wanted, true, "says 8.8.4.4 for dns.google, not 8.8.8.8"},
		"private":      {reply(t, q, 0, "8.8.8.8", "192.168.1.1"), any, true, "says 192.168.1.1 for dns.google, which is not on the Internet"},
		"shared":       {reply(t, q, 0, "100.64.0.1"), any, true, "says 100.64.0.1 for dns.google, which is not on the Internet"},
		"loopback":     {reply(t, q, 0, "127.0.0.1"), any, true, "says 127.0.0.1 for dns.google, which is not on the Internet"},
		"no such name": {reply(t, q, dnsmessage.RCodeNameError), any, true, "says that there is no dns.Google"},
		"no address":   {reply(t, q, 0), any, true, "has no address for dns.Google"},
		"fails":        {reply(t, q, dnsmessage.RCodeServerFailure), any, false, "the resolver fails"},
		"refuses":      {reply(t, q, dnsmessage.RCodeRefused), any, false, "the resolver refuses"},
		"our own":      {q, any, false, errNotOurs.Error()},
		"cut off":      {reply(t, q, 0, "8.8.8.8")[:20], any, false, errNotOurs.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := addresses(c.message, q)
			if err == nil {
				err = judge(list, c.target)
			}
			wrong := (*probe.WrongError)(nil)
			if got := ""; errors.As(err, &wrong) != c.wrong || err != nil && err.Error() != c.err || err == nil && c.err != got {
				t.Errorf("got %v", err)
			}
		})
	}
	other := reply(t, q, 0, "8.8.8.8")
	other[1]++
	if _, err := addresses(other, q); !errors.Is(err, errNotOurs) {
		t.Errorf("another identifier: %v", err)
	}
}

// FuzzAddresses: whatever is sent, an answer has addresses or an error.
func FuzzAddresses(f *testing.F) {
	q := question(f)
	f.Add(reply(f, q, 0, "8.8.8.8", "2001:db8::1"))
	f.Add(reply(f, q, dnsmessage.RCodeNameError))
	f.Add(q)
	f.Fuzz(func(t *testing.T, message []byte) {
		list, err := addresses(message, q)
		if (err == nil) == (len(list) == 0) || len(list) > maxAnswers {
			t.Fatalf("%v, %v", list, err)
		}
	})
}
