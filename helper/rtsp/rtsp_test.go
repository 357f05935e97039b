package rtsp

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tapgw/helper"
	"tapgw/helper/internal/fake"
	"tapgw/internal/packet"
)

// connect starts a connection of 10.0.0.2 by 198.51.100.1.
func connect() (*fake.Gateway, helper.Conversation) {
	g := fake.New(packet.ProtoTCP, "10.0.0.2:40000", "198.51.100.1:50000", "203.0.113.1:554")
	return g, Helper{}.Begin(g.Session, g.Reserve)
}

// begin is connect for one that speaks RTSP.
func begin() (*fake.Gateway, helper.Conversation) {
	g, c := connect()
	c.Rewrite(helper.Outbound, []byte("OPTIONS * RTSP/1.0\r\n\r\n"))
	return g, c
}

// TestConnectionsOfOthers: what does not begin as RTSP is never read, as browsers can be made to send anything in the body of a
// request.
func TestConnectionsOfOthers(t *testing.T) {
	in := setup("RTP/AVP;unicast;client_port=4588-4589")
	for _, before := range []string{"POST / HTTP/1.1\r\n\r\n", "$\x00\x00\x00", "", "\r\n", "SETUP"} {
		g, c := connect()
		c.Rewrite(helper.Outbound, []byte(before))
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != in || !c.Done() || len(g.Announced) > 0 {
			t.Errorf("after %q a request became %q", before, got)
		}
	}
}

func setup(transport string) string {
	return "SETUP rtsp://203.0.113.1/a RTSP/1.0\r\nCSeq: 2\r\nTransport: " + transport + "\r\n\r\n"
}

func TestTransports(t *testing.T) {
	for in, want := range map[string]string{
		"RTP/AVP;unicast;client_port=4588-4589":                                          "RTP/AVP;unicast;client_port=20000-20001",
		"RTP/AVP/UDP;unicast;CLIENT_PORT = 4588 - 4589 ;mode=PLAY":                       "RTP/AVP/UDP;unicast;CLIENT_PORT = 20000 - 20001 ;mode=PLAY",
		"RTP/AVP;unicast;client_port=4588":                                               "RTP/AVP;unicast;client_port=20000",
		"RTP/AVP;unicast;destination=10.0.0.2;client_port=4588-4589":                     "RTP/AVP;unicast;destination=198.51.100.1;client_port=20000-20001",
		"RTP/AVP;unicast;client_port=4588-4589,\r\n RTP/AVP/TCP;unicast;interleaved=0-1": "RTP/AVP;unicast;client_port=20000-20001,\r\n RTP/AVP/TCP;unicast;interleaved=0-1",
		`RTP/AVP;unicast;dest_addr="10.0.0.2:4588"/"10.0.0.2:4589";setup=active`:         `RTP/AVP;unicast;dest_addr="198.51.100.1:20000"/"198.51.100.1:20001";setup=active`,
		`RTP/AVP/UDP;unicast;dest_addr=":4588"/":4589"`:                                  `RTP/AVP/UDP;unicast;dest_addr=":20000"/":20001"`,
		`RTP/AVP/UDP;unicast;dest_addr=":4588"`:                                          `RTP/AVP/UDP;unicast;dest_addr=":20000"`,
		"RTP/AVP/TCP;unicast;interleaved=0-1;client_port=4588-4589":                      "",
		"RTP/AVP;multicast;client_port=4588-4589":                                        "",
		"RTP/AVP;unicast;client_port=4588-4590":                                          "",
		"RTP/AVP;unicast;client_port=588-589":                                            "", // refused
		"RTP/AVP;unicast;client_port=-":                                                  "",
		"RTP/AVP;unicast;client_port=65535-65536":                                        "",
		"RTP/AVP;unicast;destination=10.0.0.3":                                           "",
		`RTP/AVP;unicast;dest_addr="10.0.0.3:4588"/"10.0.0.3:4589"`:                      "",
		`RTP/AVP;unicast;dest_addr=":4588"/":4589"/":4590"`:                              "",
		`RTP/AVP;unicast;dest_addr="/"`:                                                  "",
		`RTP/AVP;unicast;dest_addr=""`:                                                   "",
		`RTP/AVP;unicast;dest_addr=`:                                                     "",
		"":                                                                               "",
	} {
		if want == "" {
			want = in
		}
		g, c := begin()
		if got := string(c.Rewrite(helper.Outbound, []byte(setup(in)))); got != setup(want) {
			t.Errorf("%q became %q", in, got)
		}
		for _, a := range g.Announced {
			if a.Proto != packet.ProtoUDP || a.Inside.Addr() != g.Inside.Addr() {
				t.Errorf("%q announced %+v", in, a)
			}
		}
		if (len(g.Announced) > 0) != (in != want) || c.Done() {
			t.Errorf("%q announced %v, done=%t", in, g.Announced, c.Done())
		}
	}
}

// TestAnswer: the server repeats the ports, and names its own, which stay.
func TestAnswer(t *testing.T) {
	_, c := begin()
	c.Rewrite(helper.Outbound, []byte(setup("RTP/AVP;unicast;client_port=4588-4589")))
	answer := func(ports string) string {
		return "RTSP/1.0 200 OK\r\nCSeq: 2\r\nTransport: RTP/AVP;unicast;source=203.0.113.1;client_port=" + ports + ";server_port=20000-20001\r\n\r\n"
	}
	if got := string(c.Rewrite(helper.Inbound, []byte(answer("20000-20001")))); got != answer("4588-4589") {
		t.Errorf("became %q", got)
	}
}

// TestAmongOthers: messages are found behind bodies and interleaved frames, also those that go on in the next segment.
func TestAmongOthers(t *testing.T) {
	in, want := setup("RTP/AVP;unicast;client_port=4588-4589"), setup("RTP/AVP;unicast;client_port=20000-20001")
	for _, before := range []string{"", "$\x00\x00\x04abcd", "$\x00\x00\x00", "\r\n",
		"ANNOUNCE rtsp://x RTSP/1.0\r\nContent-Length: 4\r\n\r\n$$\r\n", "OPTIONS * RTSP/1.0\r\n\r\n"} {
		for cut := range len(before) + 1 {
			if 0 < cut && cut < min(len(before), strings.Index(before+"\r\n\r\n", "\r\n\r\n")+4) && before[0] != '$' || before != "" && before[0] == '$' && 0 < cut && cut < 4 {
				continue // headers in pieces are not read
			}
			_, c := begin()
			got := string(c.Rewrite(helper.Outbound, []byte(before[:cut]))) + string(c.Rewrite(helper.Outbound, []byte(before[cut:]+in+in)))
			if got != before+want+want {
				t.Errorf("%q cut at %d became %q", before, cut, got)
			}
		}
	}
}

// TestInBandIsDone: a connection that carries its streams itself is left alone, to be as fast as any other.
func TestInBandIsDone(t *testing.T) {
	_, c := begin()
	c.Rewrite(helper.Outbound, []byte(setup("RTP/AVP/TCP;unicast;interleaved=0-1")))
	before := c.Done()
	c.Rewrite(helper.Inbound, []byte("$\x00\x00\x04abcd"))
	if before || !c.Done() {
		t.Errorf("done before %t, after %t", before, c.Done())
	}
}

func TestBackIsWhatItWas(t *testing.T) {
	transport := rapid.Custom(func(t *rapid.T) string {
		spec := rapid.SampledFrom([]string{"RTP/AVP;unicast", "RTP/AVP/UDP;unicast", "RTP/AVP/TCP;interleaved=0-1", "RTP/AVP;multicast;port=9-10"}).Draw(t, "spec")
		if n := rapid.IntRange(2000, 9998).Draw(t, "port"); rapid.Bool().Draw(t, "old") {
			return spec + ";destination=10.0.0.2;client_port=" + strconv.Itoa(n) + "-" + strconv.Itoa(n+1)
		}
		return spec + `;dest_addr="10.0.0.2:4000"/":4001"`
	})
	rapid.Check(t, func(t *rapid.T) {
		_, c := begin()
		in := setup(strings.Join(rapid.SliceOfN(transport, 1, 5).Draw(t, "transports"), ", "))
		out := c.Rewrite(helper.Outbound, []byte(in))
		if back := string(c.Rewrite(helper.Inbound, out)); back != in {
			t.Errorf("%q became %q and then %q", in, out, back)
		}
	})
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte(setup("RTP/AVP;unicast;destination=10.0.0.2;client_port=4588-4589,RTP/AVP/TCP;interleaved=0-1")), true, 3)
	f.Add([]byte(setup(`RTP/AVP;unicast;dest_addr="10.0.0.2:4588"/":4589"`)), true, 0)
	f.Add([]byte("$\x00\x00\x02ab\r\nRTSP/1.0 200 OK\r\nContent-Length: 2\r\nTransport: RTP/AVP;client_port=20000-20001\r\n\r\nxy"), false, 5)
	f.Fuzz(func(t *testing.T, in []byte, outbound bool, cut int) {
		g, c := begin()
		cut = min(max(cut, 0), len(in))
		for _, piece := range [][]byte{in, in[:cut], in[cut:]} {
			out := g.Rewrite(t, c, fake.Direction(outbound), piece)
			if bytes.Count(out, []byte("\n")) != bytes.Count(piece, []byte("\n")) {
				t.Errorf("%q became %q", piece, out)
			}
		}
	})
}

// TestIPv6: endpoints stand in brackets (RFC 7826 §18.54).
func TestIPv6(t *testing.T) {
	g := fake.New(packet.ProtoTCP, "[fd00:1::2]:40000", "[2001:db8:1::9]:50000", "[2001:db8:ff::1]:554")
	c := Helper{}.Begin(g.Session, g.Reserve)
	in := setup(`RTP/AVP;unicast;dest_addr="[fd00:1::2]:4588"/"[fd00:1::2]:4589"`)
	want := setup(`RTP/AVP;unicast;dest_addr="[2001:db8:1::9]:20000"/"[2001:db8:1::9]:20001"`)
	if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != want {
		t.Errorf("became %q", got)
	}
}
