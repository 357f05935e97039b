package sip

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tapgw/helper"
	"tapgw/helper/internal/fake"
	"tapgw/internal/packet"
)

// begin starts a conversation of 10.0.0.2:5060 by 198.51.100.1:50000.
func begin(proto uint8) (*fake.Gateway, helper.Conversation) {
	g := fake.New(proto, "10.0.0.2:5060", "198.51.100.1:50000", "203.0.113.1:5060")
	return g, Helper{}.Begin(g.Session, g.Reserve)
}

// lines is a message of lines that end as they should.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n" }

// message is a message with a body and its length.
func message(head []string, body string) string {
	return lines(append(head, fmt.Sprintf("Content-Length: %d", len(body)), "")...) + body
}

var invite = []string{
	"INVITE sip:bob@example.com SIP/2.0",
	"Via: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bK1",
	"From: <sip:al@10.0.0.2>;tag=1",
	"To: <sip:bob@example.com>",
	"Call-ID: 7@10.0.0.2",
	"CSeq: 1 INVITE",
	`Contact: "Al, <me>" <sip:al@10.0.0.2:5060;transport=udp>;q=1`,
	"Content-Type: application/sdp",
}

func description(address string, audio, video int) string {
	return lines("v=0", "o=al 1 1 IN IP4 10.0.0.2", "s=-", "c=IN IP4 "+address, "t=0 0",
		fmt.Sprintf("m=audio %d RTP/AVP 0", audio), "a=rtpmap:0 PCMU/8000", fmt.Sprintf("a=rtcp:%d", audio+1),
		fmt.Sprintf("m=video %d RTP/AVP 99", video))
}

// translated is a message of invite as the remote has to see it.
var translated = strings.NewReplacer("SIP/2.0/UDP 10.0.0.2:5060", "SIP/2.0/UDP 198.51.100.1:50000", "al@10.0.0.2:5060", "al@198.51.100.1:50000")

// TestInvite: a call from the inside, byte for byte.
func TestInvite(t *testing.T) {
	g, c := begin(packet.ProtoUDP)
	in := message(invite, description("10.0.0.2", 4000, 4010))
	want := translated.Replace(message(invite, description("198.51.100.1", 20000, 20004)))
	if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != want {
		t.Errorf("became\n%s", got)
	}
	for _, a := range g.Announced {
		if a.Proto != packet.ProtoUDP || a.Inside.Addr() != g.Inside.Addr() || a.Remote.IsValid() || !a.Pair {
			t.Errorf("announced %+v", a)
		}
	}
	if len(g.Announced) != 2 {
		t.Errorf("announced %v", g.Announced)
	}
	again := message(invite, description("10.0.0.2", 4000, 4010)) // re-INVITE
	if got := string(c.Rewrite(helper.Outbound, []byte(again))); got != want || len(g.Announced) != 2 {
		t.Errorf("became with %v\n%s", g.Announced, got)
	}
}

// TestHeaders: each form of a header is read, and only the inside's own endpoint changed.
func TestHeaders(t *testing.T) {
	for in, want := range map[string]string{
		"Via: SIP/2.0/UDP 10.0.0.2;branch=1":                         "Via: SIP/2.0/UDP 198.51.100.1:50000;branch=1",
		"v:SIP / 2.0 / UDP\r\n 10.0.0.2 : 5060 ;branch=1":            "v:SIP / 2.0 / UDP\r\n 198.51.100.1:50000 ;branch=1",
		"VIA : SIP/2.0/TCP 192.0.2.1, SIP/2.0/UDP 10.0.0.2:5060":     "VIA : SIP/2.0/TCP 192.0.2.1, SIP/2.0/UDP 198.51.100.1:50000",
		"Via: SIP/2.0/UDP 10.0.0.2:6000":                             "Via: SIP/2.0/UDP 198.51.100.1:20000",
		"Via: SIP/2.0/UDP 192.0.2.1;received=10.0.0.2;rport=5060":    "",
		"Via: SIP/2.0/UDP [2001:db8::1]:5060":                        "",
		"Via: SIP/2.0/UDP10.0.0.2":                                   "",
		"Via: SIP/2.0/UDP 10.0.0.2:x":                                "",
		"m: <sip:10.0.0.2>":                                          "m: <sip:198.51.100.1:50000>",
		"Contact: sip:al@10.0.0.2:5060;expires=60":                   "Contact: sip:al@198.51.100.1:50000;expires=60",
		"Contact:\r\n\t<SIP:al;x=y@10.0.0.2:5060?a=b>;q=1,<sip:b@x>": "Contact:\r\n\t<SIP:al;x=y@198.51.100.1:50000?a=b>;q=1,<sip:b@x>",
		`Contact: "\"<sip:al@10.0.0.2>" <sip:al@10.0.0.2:5060>`:      `Contact: "\"<sip:al@10.0.0.2>" <sip:al@198.51.100.1:50000>`,
		"Contact: <sips:al@10.0.0.2>":                                "Contact: <sips:al@198.51.100.1:20001>",
		"Contact: *":                                                 "",
		"Contact: <tel:+123>":                                        "",
		"Contact: <sip:al@10.0.0.20>":                                "",
		"Contact: <sip:al@10.0.0.2:80>":                              "", // refused
		"From: <sip:al@10.0.0.2:5060>;tag=1":                         "",
		"Call-ID: 1@10.0.0.2":                                        "",
		"Route: <sip:10.0.0.2:5060>":                                 "",
	} {
		if want == "" {
			want = in
		}
		_, c := begin(packet.ProtoUDP)
		got := string(c.Rewrite(helper.Outbound, []byte(lines("OPTIONS sip:10.0.0.2 SIP/2.0", in, ""))))
		if want = lines("OPTIONS sip:10.0.0.2 SIP/2.0", want, ""); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestDescriptions: what decides which ports and addresses change.
func TestDescriptions(t *testing.T) {
	for in, want := range map[string]string{
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0":                                           "c=IN IP4 198.51.100.1|m=audio 20000 RTP/AVP 0",
		"m=audio 4000 RTP/AVP 0|c=IN IP4 10.0.0.2":                                           "m=audio 20000 RTP/AVP 0|c=IN IP4 198.51.100.1",
		"c=IN IP4 192.0.2.9|m=audio 4000 RTP/AVP 0|m=video 4002 RTP/AVP 1|c=IN IP4 10.0.0.2": "c=IN IP4 192.0.2.9|m=audio 4000 RTP/AVP 0|m=video 20000 RTP/AVP 1|c=IN IP4 198.51.100.1",
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0|c=IN IP4 192.0.2.9":                        "c=IN IP4 198.51.100.1|m=audio 4000 RTP/AVP 0|c=IN IP4 192.0.2.9",
		"c=IN IP4 10.0.0.2|m=audio 0 RTP/AVP 0":                                              "c=IN IP4 198.51.100.1|m=audio 0 RTP/AVP 0",
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0|a=rtcp:4000":                               "c=IN IP4 198.51.100.1|m=audio 20000 RTP/AVP 0|a=rtcp:20000",
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0|a=rtcp:5003 IN IP4 10.0.0.2":               "c=IN IP4 198.51.100.1|m=audio 20000 RTP/AVP 0|a=rtcp:20005 IN IP4 198.51.100.1",
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0|a=rtcp:5003 IN IP4 192.0.2.9":              "c=IN IP4 198.51.100.1|m=audio 20000 RTP/AVP 0|a=rtcp:5003 IN IP4 192.0.2.9",
		"c=IN IP4 10.0.0.2|m=message 4000 TCP/MSRP *":                                        "c=IN IP4 198.51.100.1|m=message 4000 TCP/MSRP *",
		"c=IN IP4 10.0.0.2|m=audio 4001 RTP/AVP 0":                                           "c=IN IP4 198.51.100.1|m=audio 20001 RTP/AVP 0",
		"c=IN IP4 10.0.0.2|m=audio 4000 RTP/AVP 0|m=video 500 RTP/AVP 1":                     "", // refused: all or none
		"c=IN IP4 0.0.0.0|m=audio 4000 RTP/AVP 0":                                            "", // on hold
		"c=IN IP6 ::1|m=audio 4000 RTP/AVP 0":                                                "",
		"c=IN IP4 10.0.0.3|m=audio 4000 RTP/AVP 0":                                           "",
		"m=audio 4000 RTP/AVP 0":                                                             "",
		"m=|c=|a=rtcp:|m= |c= |m=a b|c=IN":                                                   "",
	} {
		if want == "" {
			want = in
		}
		_, c := begin(packet.ProtoUDP)
		head := []string{"SIP/2.0 200 OK", "c: Application/SDP ; x=y"}
		body := func(s string) string { return message(head, strings.ReplaceAll(s, "|", "\n")) }
		if got := string(c.Rewrite(helper.Outbound, []byte(body(in)))); got != body(want) {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestAnswers: a registrar's answer, and a call that it hands on, name the inside again.
func TestAnswers(t *testing.T) {
	_, c := begin(packet.ProtoUDP)
	for in, want := range map[string]string{
		lines("SIP/2.0 200 OK", "v: SIP/2.0/UDP 198.51.100.1:50000;received=198.51.100.1;rport=50000", "m: <sip:al@198.51.100.1:50000>;expires=60", "l: 0", ""): lines("SIP/2.0 200 OK", "v: SIP/2.0/UDP 10.0.0.2:5060;received=198.51.100.1;rport=50000", "m: <sip:al@10.0.0.2:5060>;expires=60", "l: 0", ""),
		lines("INVITE sip:al@198.51.100.1:50000;ob SIP/2.0", "Via: SIP/2.0/UDP 203.0.113.1", "Contact: <sip:bob@192.0.2.7>", ""):                                lines("INVITE sip:al@10.0.0.2:5060;ob SIP/2.0", "Via: SIP/2.0/UDP 203.0.113.1", "Contact: <sip:bob@192.0.2.7>", ""),
		lines("BYE sip:al@198.51.100.1:50001 SIP/2.0", ""): lines("BYE sip:al@198.51.100.1:50001 SIP/2.0", ""),
	} {
		if got := string(c.Rewrite(helper.Inbound, []byte(in))); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestStream: on TCP several whole messages are read from one segment, and none that goes on in the next.
func TestStream(t *testing.T) {
	one := message(invite, description("10.0.0.2", 4000, 4010))
	done := translated.Replace(message(invite, description("198.51.100.1", 20000, 20004)))
	for in, want := range map[string]string{
		one:                                 done,
		"\r\n\r\n" + one + "\r\n" + one:     "\r\n\r\n" + done + "\r\n" + done,
		one + one[:len(one)-1]:              done + one[:len(one)-1],
		one[:len(one)-1]:                    one[:len(one)-1],
		lines(append(invite, "")...):        lines(append(invite, "")...), // no length
		strings.Replace(one, "0 ", "x ", 1): strings.Replace(done, "0 ", "x ", 1),
	} {
		_, c := begin(packet.ProtoTCP)
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// TestConnectionsOfOthers: what does not begin as SIP is never read, as browsers can be made to send anything in the body of a
// request.
func TestConnectionsOfOthers(t *testing.T) {
	in := message(invite, description("10.0.0.2", 4000, 4010))
	for before, other := range map[string]bool{"POST / HTTP/1.1\r\n\r\n": true, "x": true, "\r\n": false, "": false, in: false} {
		_, c := begin(packet.ProtoTCP)
		c.Rewrite(helper.Outbound, []byte(before))
		if got := string(c.Rewrite(helper.Outbound, []byte(in))); (got == in) != other || c.Done() != other {
			t.Errorf("after %q a request became %q", before, got)
		}
	}
}

// TestBackIsWhatItWas: what a remote repeats to the one who said it is what he said.
func TestBackIsWhatItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, c := begin(packet.ProtoUDP)
		port := rapid.IntRange(1024, 65534)
		head := append([]string(nil), invite...)
		for range rapid.IntRange(0, 3).Draw(t, "contacts") {
			head = append(head, fmt.Sprintf("Contact: <sip:x@10.0.0.2:%d>", port.Draw(t, "contact")))
		}
		in := message(head, description("10.0.0.2", port.Draw(t, "audio"), port.Draw(t, "video")))
		out := c.Rewrite(helper.Outbound, []byte(in))
		if n := bytes.Count(out, []byte("10.0.0.2")); n != 3 { // From, Call-ID, o=
			t.Errorf("%d inside addresses are left in %s", n, out)
		}
		if back := string(c.Rewrite(helper.Inbound, out)); back != in {
			t.Errorf("became\n%s\nand then\n%s", out, back)
		}
	})
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte(message(invite, description("10.0.0.2", 4000, 4010))), true, false)
	f.Add([]byte(message(invite, description("10.0.0.2", 4000, 4010))), true, true)
	f.Add([]byte(translated.Replace(message(invite, description("198.51.100.1", 20000, 20004)))), false, false)
	f.Add([]byte("SIP/2.0 200 OK\r\nv:SIP/2.0/UDP\r\n 10.0.0.2\r\nm:sip:10.0.0.2:1;a,*\r\nl:2\r\nc:application/sdp\r\n\r\nm="), true, false)
	f.Fuzz(func(t *testing.T, in []byte, outbound, stream bool) {
		proto := uint8(packet.ProtoUDP)
		if stream {
			proto = packet.ProtoTCP
		}
		g, c := begin(proto)
		for range 2 {
			out := g.Rewrite(t, c, fake.Direction(outbound), in)
			if bytes.Count(out, []byte("\n")) > bytes.Count(in, []byte("\n")) {
				t.Errorf("%q became %q", in, out)
			}
		}
	})
}

// TestIPv6: endpoints stand in brackets, and descriptions name their family.
func TestIPv6(t *testing.T) {
	const in, out = "fd00:1::2", "2001:db8:1::9"
	for text, want := range map[string]string{
		"Via: SIP/2.0/UDP [fd00:1::2]:5060;rport":        "Via: SIP/2.0/UDP [2001:db8:1::9]:50000;rport",
		"Via: SIP/2.0/UDP [fd00:1:0::2];branch=1":        "Via: SIP/2.0/UDP [2001:db8:1::9]:50000;branch=1",
		"Contact: <sip:al@[fd00:1::2]:5060;x=y>;q=1":     "Contact: <sip:al@[2001:db8:1::9]:50000;x=y>;q=1",
		"Contact: <sip:al@[fd00:1::2]:6000>":             "Contact: <sip:al@[2001:db8:1::9]:20000>",
		"Contact: <sip:al@[fd00:1::3]:5060>":             "",
		"Contact: <sip:al@fd00:1::2>":                    "",
		"Contact: <sip:al@[fd00:1::2>":                   "",
		"Contact: <sip:al@[fd00:1::2]x:5060>":            "",
		"Contact: <sip:al@[10.0.0.2]:5060>":              "",
		"Via: SIP/2.0/UDP 10.0.0.2:5060, SIP/2.0/UDP []": "",
	} {
		if want == "" {
			want = text
		}
		g := fake.New(packet.ProtoUDP, "[fd00:1::2]:5060", "[2001:db8:1::9]:50000", "[2001:db8:ff::1]:5060")
		c := Helper{}.Begin(g.Session, g.Reserve)
		if got := string(c.Rewrite(helper.Outbound, []byte(lines("OPTIONS sip:x SIP/2.0", text, "")))); got != lines("OPTIONS sip:x SIP/2.0", want, "") {
			t.Errorf("%q became %q", text, got)
		}
	}
	g := fake.New(packet.ProtoUDP, "[fd00:1::2]:5060", "[2001:db8:1::9]:50000", "[2001:db8:ff::1]:5060")
	c := Helper{}.Begin(g.Session, g.Reserve)
	v6 := func(address string, port int) string {
		return lines("v=0", "c=IN IP6 "+address, fmt.Sprintf("m=audio %d RTP/AVP 0", port), fmt.Sprintf("a=rtcp:%d IN IP6 %s", port+1, address))
	}
	head := []string{"INVITE sip:bob@example.com SIP/2.0", "Content-Type: application/sdp"}
	if got := string(c.Rewrite(helper.Outbound, []byte(message(head, v6(in, 4000))))); got != message(head, v6(out, 20000)) {
		t.Errorf("became\n%s", got)
	}
	mixed := message(head, "c=IN IP4 fd00:1::2\r\nm=audio 4000 RTP/AVP 0\r\n")
	if got := string(c.Rewrite(helper.Outbound, []byte(mixed))); got != mixed {
		t.Errorf("became\n%s", got)
	}
}
