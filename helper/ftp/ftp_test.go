package ftp

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tapgw/helper"
)

var (
	inside  = netip.MustParseAddrPort("192.168.1.10:40000")
	outside = netip.MustParseAddrPort("198.51.100.1:50000")
	server  = netip.MustParseAddrPort("203.0.113.21:21")
	data    = netip.MustParseAddrPort("198.51.100.1:51234")
)

// talk is a conversation whose announcements are kept.
type talk struct {
	helper.Conversation
	announced []helper.Related
	full      bool
}

func begin() *talk {
	w := &talk{}
	s := helper.Session{Proto: protoTCP, Inside: inside, Outside: outside, Remote: server}
	w.Conversation = Helper{}.Begin(s, func(r helper.Related) (netip.AddrPort, bool) {
		w.announced = append(w.announced, r)
		if r.Inside.Port() == 0 {
			return netip.AddrPortFrom(outside.Addr(), 0), !w.full
		}
		return data, !w.full
	})
	return w
}

func active(inside string) helper.Related {
	return helper.Related{
		Proto: protoTCP, Inside: netip.MustParseAddrPort(inside), Remote: netip.AddrPortFrom(server.Addr(), 0),
	}
}

func passive(remote string) helper.Related {
	return helper.Related{
		Proto: protoTCP, Inside: netip.AddrPortFrom(inside.Addr(), 0), Remote: netip.MustParseAddrPort(remote),
	}
}

func TestCommandsNameTheOutsideEndpoint(t *testing.T) {
	for _, c := range []struct{ in, want, announced string }{
		{"PORT 192,168,1,10,200,1\r\n", "PORT 198,51,100,1,200,34\r\n", "192.168.1.10:51201"},
		{"port 192,168,1,10,200,1\n", "port 198,51,100,1,200,34\n", "192.168.1.10:51201"},
		{"TYPE I\r\nPORT 192,168,1,10,4,0\r\nNOOP\r\n", "TYPE I\r\nPORT 198,51,100,1,200,34\r\nNOOP\r\n", "192.168.1.10:1024"},
		{"EPRT |1|192.168.1.10|6446|\r\n", "EPRT |1|198.51.100.1|51234|\r\n", "192.168.1.10:6446"},
		{"EPRT !1!192.168.1.10!6446!\r\n", "EPRT !1!198.51.100.1!51234!\r\n", "192.168.1.10:6446"},
	} {
		w := begin()
		if got := string(w.Rewrite(helper.Outbound, []byte(c.in))); got != c.want {
			t.Errorf("%q became %q, not %q", c.in, got, c.want)
		}
		if want := []helper.Related{active(c.announced)}; !slices.Equal(w.announced, want) {
			t.Errorf("%q announced %v, not %v", c.in, w.announced, want)
		}
	}
}

func TestRepliesAnnounceTheServersPort(t *testing.T) {
	for in, want := range map[string]string{
		"227 Entering Passive Mode (203,0,113,21,200,1).\r\n":      "203.0.113.21:51201",
		"227 =203,0,113,21,200,1\r\n":                              "203.0.113.21:51201",
		"229 Entering Extended Passive Mode (|||6446|)\r\n":        "203.0.113.21:6446",
		"200 Fine.\r\n229 Extended Passive Mode OK (!!!6446!)\r\n": "203.0.113.21:6446",
		"227 Entering Passive Mode (203,0,113,21,200,1) or so\r\n": "203.0.113.21:51201",
		"229 (|||65535|)\n": "203.0.113.21:65535",
	} {
		w := begin()
		if got := w.Rewrite(helper.Inbound, []byte(in)); string(got) != in {
			t.Errorf("%q became %q", in, got)
		}
		if want := []helper.Related{passive(want)}; !slices.Equal(w.announced, want) {
			t.Errorf("%q announced %v, not %v", in, w.announced, want)
		}
	}
}

// TestHostilePayloads: neither the bounce attack (RFC 2577 §3) nor nonsense announces or changes anything.
func TestHostilePayloads(t *testing.T) {
	for _, in := range []string{
		"PORT 192,168,1,11,200,1\r\n", "PORT 203,0,113,21,200,1\r\n", "EPRT |1|192.168.1.11|6446|\r\n", // another host
		"PORT 192,168,1,10,0,0\r\n", "EPRT |1|192.168.1.10|0|\r\n", // no port
		"PORT 192,168,1,10,256,1\r\n", "PORT 192,168,1,10,200\r\n", "PORT 192,168,1,10\r\n", "PORT\r\n", "PORT \r\n",
		"PORT 192,168,1,10,200,-1\r\n", "PORT 192,168,1,10,,1\r\n", "PORT 000000000192,168,1,10,200,1\r\n",
		"EPRT\r\n", "EPRT |\r\n", "EPRT |1|192.168.1.10|6446\r\n", "EPRT |2|192.168.1.10|6446|\r\n", "EPRT |1|192.168.1.10|65536|\r\n",
		"EPRT |1|192.168.1.10|6446|x|\r\n", "EPRT 11192.168.1.101644611\r\n", "EPRT |2|fe80::1%eth0|6446|\r\n",
		"XPORT 192,168,1,10,200,1\r\n", "STOR PORT 192,168,1,10,200,1\r\n", "PORT 192,168,1,10,200,1", // no command of ours
		strings.Repeat("A", maxLine) + "PORT 192,168,1,10,200,1\r\n",
	} {
		w := begin()
		if got := w.Rewrite(helper.Outbound, []byte(in)); string(got) != in || len(w.announced) > 0 {
			t.Errorf("%q became %q and announced %v", in, got, w.announced)
		}
	}
	for _, in := range []string{
		"227 Entering Passive Mode (203,0,113,22,200,1)\r\n", "227 Entering Passive Mode (10,0,0,1,0,22)\r\n", // another host
		"227-Entering Passive Mode (203,0,113,21,200,1)\r\n", " 227 (203,0,113,21,200,1)\r\n", "227 none\r\n", "227\r\n", "227 \r\n",
		"229 ()\r\n", "229 (|||)\r\n", "229 (||6446|)\r\n", "229 (|||6446)\r\n", "229 (|||0|)\r\n", "229 (|||65536|)\r\n", "229 (1116446|)\r\n",
		"226 (203,0,113,21,200,1)\r\n",
	} {
		w := begin()
		if got := w.Rewrite(helper.Inbound, []byte(in)); string(got) != in || len(w.announced) > 0 {
			t.Errorf("%q became %q and announced %v", in, got, w.announced)
		}
	}
}

func TestRefusedReservationChangesNothing(t *testing.T) {
	w := begin()
	w.full = true
	const in = "PORT 192,168,1,10,200,1\r\n"
	if got := string(w.Rewrite(helper.Outbound, []byte(in))); got != in {
		t.Errorf("%q became %q", in, got)
	}
}

// TestPieces: replies are read however they are cut; a command in pieces has gone already, and the next is read again.
func TestPieces(t *testing.T) {
	const in = "229 Entering Extended Passive Mode (|||6446|)\r\n"
	for cut := range len(in) {
		w := begin()
		w.Rewrite(helper.Inbound, []byte(in[:cut]))
		w.Rewrite(helper.Inbound, []byte(in[cut:]))
		if want := []helper.Related{passive("203.0.113.21:6446")}; !slices.Equal(w.announced, want) {
			t.Errorf("cut at %d it announced %v", cut, w.announced)
		}
	}
	w := begin()
	for _, piece := range []string{"PORT 192,168", ",1,10,200,1\r\n"} {
		if got := string(w.Rewrite(helper.Outbound, []byte(piece))); got != piece {
			t.Errorf("%q became %q", piece, got)
		}
	}
	if got := string(w.Rewrite(helper.Outbound, []byte("PORT 192,168,1,10,200,2\r\n"))); got != "PORT 198,51,100,1,200,34\r\n" {
		t.Errorf("the command after one in pieces became %q", got)
	}
}

func TestTLSNeedsNoHelp(t *testing.T) {
	w := begin()
	w.Rewrite(helper.Outbound, []byte("AUTH TLS\r\n"))
	if w.Done() {
		t.Error("done before the server agreed")
	}
	w.Rewrite(helper.Inbound, []byte("234 Proceed\r\n"))
	if !w.Done() {
		t.Error("not done after TLS began")
	}
	const in = "PORT 192,168,1,10,200,1\r\n"
	if got := string(w.Rewrite(helper.Outbound, []byte(in))); got != in || len(w.announced) > 0 {
		t.Errorf("%q became %q behind TLS", in, got)
	}
}

// FuzzRewrite: whatever comes in whatever pieces, no memory grows, nobody else's address is announced, and what is not a
// command stays.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte("PORT 192,168,1,10,200,1\r\n"), 3, true)
	f.Add([]byte("EPRT |1|192.168.1.10|6446|\r\n"), 40, true)
	f.Add([]byte("227 Entering Passive Mode (203,0,113,21,200,1).\r\n"), 100, false)
	f.Add([]byte("229 Entering Extended Passive Mode (|||6446|)\r\n234 x\r\n"), 7, false)
	f.Fuzz(func(t *testing.T, in []byte, cut int, outbound bool) {
		w, d := begin(), helper.Inbound
		if outbound {
			d = helper.Outbound
		}
		cut = max(0, min(cut, len(in)))
		for _, piece := range [][]byte{in[:cut], in[cut:]} {
			before := bytes.Clone(piece)
			got := w.Rewrite(d, piece)
			if !bytes.Equal(piece, before) {
				t.Error("the payload was written to")
			}
			if bytes.Count(got, []byte("\n")) != bytes.Count(piece, []byte("\n")) || !outbound && !bytes.Equal(got, piece) {
				t.Errorf("%q became %q", piece, got)
			}
		}
		for _, r := range w.announced {
			if r.Inside.Addr() != inside.Addr() || r.Remote.Addr() != server.Addr() || outbound == (r.Inside.Port() == 0) {
				t.Errorf("announced %v", r)
			}
		}
		for _, p := range w.Conversation.(*conversation).partial {
			if len(p) > maxLine {
				t.Errorf("%d bytes are kept", len(p))
			}
		}
	})
}
