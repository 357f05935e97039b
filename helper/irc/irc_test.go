package irc

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tapgw/helper"
	"tapgw/helper/internal/fake"
	"tapgw/internal/packet"
)

// connect starts a connection of 10.0.0.2, which is 167772162, by 198.51.100.1, which is 3325256705.
func connect() (*fake.Gateway, helper.Conversation) {
	g := fake.New(packet.ProtoTCP, "10.0.0.2:40000", "198.51.100.1:50000", "203.0.113.1:6667")
	return g, Helper{}.Begin(g.Session, g.Reserve)
}

// begin is connect for one that speaks IRC.
func begin() (*fake.Gateway, helper.Conversation) {
	g, c := connect()
	c.Rewrite(helper.Outbound, []byte("NICK al\r\n"))
	return g, c
}

// TestConnectionsOfOthers: what does not begin as IRC is never read, as browsers can be made to send anything in the body of a
// request.
func TestConnectionsOfOthers(t *testing.T) {
	const offer = "NICK al\r\nPRIVMSG bob :\x01DCC CHAT chat 167772162 5000\x01\r\n"
	for _, in := range []string{"POST / HTTP/1.1\r\n", "\x16\x03\x01\x02\x00", "", "NICK", "PRIVMSG bob :hello\r\n"} {
		g, c := connect()
		c.Rewrite(helper.Outbound, []byte(in))
		if got := string(c.Rewrite(helper.Outbound, []byte(offer))); got != offer || !c.Done() || len(g.Announced) > 0 {
			t.Errorf("after %q an offer became %q", in, got)
		}
	}
}

func TestOffersNameTheOutside(t *testing.T) {
	for in, want := range map[string]string{
		"PRIVMSG bob :\x01DCC SEND file.txt 167772162 5001 123\x01\r\n":             "PRIVMSG bob :\x01DCC SEND file.txt 3325256705 20001 123\x01\r\n",
		"PRIVMSG bob :\x01DCC CHAT chat 167772162 5000\x01\r\n":                     "PRIVMSG bob :\x01DCC CHAT chat 3325256705 20000\x01\r\n",
		"privmsg bob :\x01DCC TSEND \"my file.txt\" 167772162 5000 1\x01\n":         "privmsg bob :\x01DCC TSEND \"my file.txt\" 3325256705 20000 1\x01\n",
		"@id=1 :al!a@h PRIVMSG bob :\x01DCC CHAT chat 167772162 5000\x01\r\n":       "@id=1 :al!a@h PRIVMSG bob :\x01DCC CHAT chat 3325256705 20000\x01\r\n",
		"NOTICE bob :see \x01DCC SEND f 167772162 5000 1\x01 \x01PING 1\x01\r\n":    "NOTICE bob :see \x01DCC SEND f 3325256705 20000 1\x01 \x01PING 1\x01\r\n",
		"PRIVMSG bob :\x01DCC SEND f 167772162 0 123 77\x01\r\n":                    "PRIVMSG bob :\x01DCC SEND f 3325256705 0 123 77\x01\r\n", // reverse
		"PRIVMSG bob :\x01DCC CHAT chat 167772162 5000\r\n":                         "PRIVMSG bob :\x01DCC CHAT chat 3325256705 20000\r\n",
		"NICK al\r\nPRIVMSG b :\x01DCC CHAT c 167772162 5000\x01\r\nPING :x\r\nPRI": "NICK al\r\nPRIVMSG b :\x01DCC CHAT c 3325256705 20000\x01\r\nPING :x\r\nPRI",
	} {
		g, c := begin()
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != want {
			t.Errorf("%q became %q", in, got)
		}
		for _, a := range g.Announced {
			if a.Proto != packet.ProtoTCP || a.Inside.Addr() != g.Inside.Addr() || a.Remote.IsValid() || a.Pair {
				t.Errorf("%q announced %+v", in, a)
			}
		}
	}
}

func TestOthersStay(t *testing.T) {
	for _, in := range []string{
		"PRIVMSG bob :\x01DCC SEND f 167772163 5000 1\x01\r\n",    // another host
		"PRIVMSG bob :\x01DCC SEND f 167772162 500 1\x01\r\n",     // refused
		"PRIVMSG bob :\x01DCC SEND f 167772162 70000 1\x01\r\n",   //
		"PRIVMSG bob :\x01DCC SEND f 4462739458 5000 1\x01\r\n",   // 2^32 more
		"PRIVMSG bob :\x01DCC SEND f -167772162 5000 1\x01\r\n",   //
		"PRIVMSG bob :\x01DCC SEND \"open 167772162 5000\x01\r\n", //
		"PRIVMSG bob :DCC SEND f 167772162 5000 1\r\n",            // said, not offered
		"TOPIC #c :\x01DCC SEND f 167772162 5000 1\x01\r\n",       //
		"PRIVMSG bob :\x01DCC SEND f 2001:db8::1 5000 1\x01\r\n",  //
		"PRIVMSG bob :\x01DCC SEND f 167772162 5000 1",            // to be continued
		"PRIVMSG bob :\x01DCC ACCEPT f 5000 100\x01\r\n",          // never offered
		"PRIVMSG\r\n", "\r\n", "", "@\r\n", ":\r\n", "PRIVMSG b :\x01\r\n", "PRIVMSG b :\x01DCC \x01\r\n",
	} {
		g, c := begin()
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != in {
			t.Errorf("%q became %q", in, got)
		}
		if n := len(g.Announced); n > 0 {
			t.Errorf("%q announced %v", in, g.Announced)
		}
	}
}

// TestResume: the one who receives names the port he saw, the one who sends answers with his own.
func TestResume(t *testing.T) {
	_, c := begin()
	c.Rewrite(helper.Outbound, []byte("PRIVMSG bob :\x01DCC SEND f 167772162 5000 1\x01\r\n"))
	for _, step := range []struct {
		to       helper.Direction
		in, want string
	}{
		{helper.Inbound, ":bob PRIVMSG al :\x01DCC RESUME f 20000 100\x01\r\n", ":bob PRIVMSG al :\x01DCC RESUME f 5000 100\x01\r\n"},
		{helper.Outbound, "PRIVMSG bob :\x01DCC ACCEPT f 5000 100\x01\r\n", "PRIVMSG bob :\x01DCC ACCEPT f 20000 100\x01\r\n"},
		{helper.Outbound, "PRIVMSG bob :\x01DCC RESUME f 5000 100\x01\r\n", "PRIVMSG bob :\x01DCC RESUME f 5000 100\x01\r\n"},
		{helper.Inbound, ":bob PRIVMSG al :\x01DCC ACCEPT f 20000 100\x01\r\n", ":bob PRIVMSG al :\x01DCC ACCEPT f 20000 100\x01\r\n"},
		{helper.Inbound, ":bob PRIVMSG al :\x01DCC SEND f 3325256999 20000 1\x01\r\n", ":bob PRIVMSG al :\x01DCC SEND f 3325256999 20000 1\x01\r\n"},
	} {
		if got := string(c.Rewrite(step.to, []byte(step.in))); got != step.want {
			t.Errorf("%q became %q", step.in, got)
		}
	}
}

// TestBackIsWhatItWas: what a server echoes to its sender is what he said.
func TestBackIsWhatItWas(t *testing.T) {
	offer := rapid.Custom(func(t *rapid.T) string {
		verb := rapid.SampledFrom([]string{"SEND", "CHAT", "XMIT", "TSEND", "dcc"}).Draw(t, "verb")
		port := rapid.StringMatching(`[2-9][0-9]{3}|0`).Draw(t, "port")
		name := rapid.StringMatching(`[a-z.]{1,8}|"[a-z ]{1,8}"`).Draw(t, "name")
		return "PRIVMSG x :\x01DCC " + verb + " " + name + " 167772162 " + port + " 100\x01\r\n"
	})
	other := rapid.StringMatching(`[A-Z]{3,8} [ -~]{0,40}\r\n`)
	rapid.Check(t, func(t *rapid.T) {
		_, c := begin()
		in := strings.Join(rapid.SliceOfN(rapid.OneOf(offer, other), 1, 10).Draw(t, "lines"), "")
		out := c.Rewrite(helper.Outbound, []byte(in))
		if bytes.Contains(out, []byte("167772162")) {
			t.Errorf("%q became %q", in, out)
		}
		if back := string(c.Rewrite(helper.Inbound, out)); back != in {
			t.Errorf("%q became %q and then %q", in, out, back)
		}
	})
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte("PRIVMSG bob :\x01DCC SEND \"my file\" 167772162 5001 123\x01\r\n"), true)
	f.Add([]byte("@t=1 :al!a@h NOTICE bob :\x01DCC CHAT chat 167772162 5000\x01 \x01DCC SEND f 167772162 0 1 2\x01\r\nPING :1\r\n"), true)
	f.Add([]byte(":bob PRIVMSG al :\x01DCC RESUME f 20000 100\x01\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, outbound bool) {
		g, c := begin()
		for range 2 {
			out := g.Rewrite(t, c, fake.Direction(outbound), in)
			if bytes.Count(out, []byte("\n")) != bytes.Count(in, []byte("\n")) {
				t.Errorf("%q became %q", in, out)
			}
		}
	})
}

// TestIPv6: offers of IPv6 write the address out.
func TestIPv6(t *testing.T) {
	for address, want := range map[string]string{
		"fd00:1::2 5001": "2001:db8:1::9 20001", "fd00:1:0:0::2 5001": "2001:db8:1::9 20001", "fd00:1::3 5001": "fd00:1::3 5001", "2 5001": "2 5001",
	} {
		g := fake.New(packet.ProtoTCP, "[fd00:1::2]:40000", "[2001:db8:1::9]:50000", "[2001:db8:ff::1]:6667")
		c := Helper{}.Begin(g.Session, g.Reserve)
		c.Rewrite(helper.Outbound, []byte("NICK al\r\n"))
		in := "PRIVMSG bob :\x01DCC SEND f " + address + " 1\x01\r\n"
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != "PRIVMSG bob :\x01DCC SEND f "+want+" 1\x01\r\n" {
			t.Errorf("%q became %q", in, got)
		}
	}
}
