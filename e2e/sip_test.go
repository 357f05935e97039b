package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestMW3_SIPMediaFollowsSignalling: phones on the LAN register, call and are called, over UDP and TCP. Each side hears the
// other at the addresses that the messages name, by the uplink of the signalling (opnsense#3516).
func TestMW3_SIPMediaFollowsSignalling(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn+helping("sip"))
	server := acceptAt(t, w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], sipPort))
	sockets := map[string]func() (phone, registrar sipEnd){
		"UDP": func() (phone, registrar sipEnd) { return datagramEnds(t, w) },
		"TCP": func() (phone, registrar sipEnd) {
			p := dialPair(t, w.lan, server)
			return sipEnd{p.client, "TCP"}, sipEnd{p.server, "TCP"}
		},
	}
	for name, open := range sockets {
		t.Run(name, func(t *testing.T) {
			used := make(map[netip.Addr]bool)
			for range 4 {
				phone, registrar := open()
				c := call{phone, registrar, phone.register(t, registrar)}
				c.out(t, w)
				c.in(t, w)
				used[c.outside.Addr()] = true
				phone.Close()
				registrar.Close()
			}
			expectAllUplinks(t, w, used)
		})
	}
}

// TestRFC4787_REQ10_MessagesPassAsTheyAre: without the helper messages pass byte for byte, and nobody can be reached at what they
// name.
func TestRFC4787_REQ10_MessagesPassAsTheyAre(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "")
	phone, registrar := datagramEnds(t, w)
	stream := openMedia(t, w.lan, w.Hosts[0].Addr)
	asked := message("INVITE sip:bob@example.com SIP/2.0", "UDP", phone.local(), phone.local(), audio(w.Hosts[0].Addr, stream.port()))
	phone.send(t, asked)
	if got := registrar.receive(t); got != asked {
		t.Errorf("arrived as\n%s", got)
	}
	source := openMedia(t, w.Internet, lab.ServerAddrs[0])
	source.expectLost(t, netip.AddrPortFrom(addrPort(registrar.RemoteAddr()).Addr(), stream.port()), stream)
}

const sipPort = 5060

// sipEnd is one end of the signalling.
type sipEnd struct {
	net.Conn
	transport string
}

func (e sipEnd) local() netip.AddrPort { return addrPort(e.LocalAddr()) }

// datagramEnds are a phone's socket and the registrar's, which answers to where the phone's first datagram, eaten here, came from.
func datagramEnds(t testing.TB, w world) (phone, registrar sipEnd) {
	t.Helper()
	at := netip.AddrPortFrom(lab.ServerAddrs[0], sipPort)
	server, err := listenUDP(w.Internet, at)
	labtest.Must(t, err)
	client, err := w.lan.Dial(labtest.Context(t), "udp4", at.String())
	labtest.Must(t, err)
	_, err = client.Write([]byte("\r\n\r\n")) // keep-alive (RFC 5626 §4.4.1)
	labtest.Must(t, err)
	labtest.Must(t, server.SetReadDeadline(time.Now().Add(patience)))
	_, from, err := server.ReadFrom(make([]byte, 100))
	labtest.Must(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	return sipEnd{client, "UDP"}, sipEnd{answering{server.(*net.UDPConn), from}, "UDP"}
}

// answering is a socket that sends to one remote.
type answering struct {
	*net.UDPConn
	to net.Addr
}

func (a answering) RemoteAddr() net.Addr              { return a.to }
func (a answering) Write(b []byte) (n int, err error) { return a.WriteTo(b, a.to) }

// message is a request or response with a body: who is meant by Via and Contact are parameters, all else is fixed.
func message(start, transport string, via, contact netip.AddrPort, body string) string {
	return strings.Join([]string{start, "Via: SIP/2.0/" + transport + " " + via.String() + ";rport;branch=z9hG4bK1",
		"From: <sip:al@10.0.0.2>;tag=1", "To: <sip:bob@example.com>", "Call-ID: 7@10.0.0.2", "CSeq: 1 X",
		"Contact: <sip:al@" + contact.String() + ">;expires=60", "Content-Type: application/sdp",
		"Content-Length: " + strconv.Itoa(len(body)), "", body}, "\r\n")
}

// audio describes a stream.
func audio(at netip.Addr, port uint16) string {
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\na=rtcp:%d\r\n", at, port, port+1)
}

var audioPort = regexp.MustCompile(`(?m)^m=audio (\d+) `)

// mediaPort is the port that a description names.
func mediaPort(t testing.TB, text string) uint16 {
	t.Helper()
	match := audioPort.FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no stream in\n%s", text)
	}
	port, err := strconv.ParseUint(match[1], 10, 16)
	labtest.Must(t, err)
	return uint16(port)
}

func (e sipEnd) send(t testing.TB, text string) {
	t.Helper()
	_, err := e.Write([]byte(text))
	labtest.Must(t, err)
}

// receive is the next message: all that comes at once, as none follows another without an answer.
func (e sipEnd) receive(t testing.TB) string {
	t.Helper()
	labtest.Must(t, e.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 4096)
	n, err := e.Read(b)
	labtest.Must(t, err)
	return string(b[:n])
}

// expect receives a message that must be so.
func (e sipEnd) expect(t testing.TB, want string) {
	t.Helper()
	if got := e.receive(t); got != want {
		t.Fatalf("received\n%s\nnot\n%s", got, want)
	}
}

// register tells the registrar where the phone is, and returns what it is told.
func (e sipEnd) register(t testing.TB, registrar sipEnd) (outside netip.AddrPort) {
	t.Helper()
	outside = addrPort(registrar.RemoteAddr())
	e.send(t, message("REGISTER sip:example.com SIP/2.0", e.transport, e.local(), e.local(), ""))
	registrar.expect(t, message("REGISTER sip:example.com SIP/2.0", e.transport, outside, outside, ""))
	registrar.send(t, message("SIP/2.0 200 OK", e.transport, outside, outside, ""))
	e.expect(t, message("SIP/2.0 200 OK", e.transport, e.local(), e.local(), ""))
	return outside
}

// call is a phone, its registrar and where that sees it.
type call struct {
	phone, registrar sipEnd
	outside          netip.AddrPort
}

// out is a call that the phone makes, and changes: the second INVITE of the dialog names the same stream.
func (c call) out(t testing.TB, w world) {
	t.Helper()
	stream, remote := openMedia(t, w.lan, w.Hosts[0].Addr), openMedia(t, w.Internet, lab.ServerAddrs[1])
	var port uint16
	for range 2 {
		const start = "INVITE sip:bob@example.com SIP/2.0"
		c.phone.send(t, message(start, c.phone.transport, c.phone.local(), c.phone.local(), audio(w.Hosts[0].Addr, stream.port())))
		asked := c.registrar.receive(t)
		if port != 0 && port != mediaPort(t, asked) {
			t.Errorf("the stream moved from port %d to %d", port, mediaPort(t, asked))
		}
		port = mediaPort(t, asked)
		if want := message(start, c.phone.transport, c.outside, c.outside, audio(c.outside.Addr(), port)); asked != want {
			t.Fatalf("asked for\n%s\nnot\n%s", asked, want)
		}
		answer := func(via netip.AddrPort) string {
			return message("SIP/2.0 200 OK", c.phone.transport, via, addrPort(remote.conns[0].LocalAddr()), audio(lab.ServerAddrs[1], remote.port()))
		}
		c.registrar.send(t, answer(c.outside))
		c.phone.expect(t, answer(c.phone.local()))
	}
	stream.speak(t, netip.AddrPortFrom(lab.ServerAddrs[1], remote.port()), remote)
	if from := remote.heard[0]; from != netip.AddrPortFrom(c.outside.Addr(), port) || remote.heard[1].Port() != port+1 {
		t.Errorf("the stream comes from %v, the call named %s:%d", remote.heard, c.outside.Addr(), port)
	}
	remote.speak(t, netip.AddrPortFrom(c.outside.Addr(), port), stream)
	c.phone.send(t, message("BYE sip:bob@example.com SIP/2.0", c.phone.transport, c.phone.local(), c.phone.local(), ""))
	c.registrar.expect(t, message("BYE sip:bob@example.com SIP/2.0", c.phone.transport, c.outside, c.outside, ""))
}

// in is a call to the phone. The remote speaks first.
func (c call) in(t testing.TB, w world) {
	t.Helper()
	stream, remote := openMedia(t, w.lan, w.Hosts[0].Addr), openMedia(t, w.Internet, lab.ServerAddrs[1])
	far := addrPort(remote.conns[0].LocalAddr())
	ask := func(to netip.AddrPort) string {
		return message("INVITE sip:al@"+to.String()+" SIP/2.0", c.phone.transport, far, far, audio(far.Addr(), far.Port()))
	}
	c.registrar.send(t, ask(c.outside))
	c.phone.expect(t, ask(c.phone.local()))
	c.phone.send(t, message("SIP/2.0 200 OK", c.phone.transport, far, c.phone.local(), audio(w.Hosts[0].Addr, stream.port())))
	answer := c.registrar.receive(t)
	port := mediaPort(t, answer)
	if want := message("SIP/2.0 200 OK", c.phone.transport, far, c.outside, audio(c.outside.Addr(), port)); answer != want {
		t.Fatalf("answered\n%s\nnot\n%s", answer, want)
	}
	remote.speak(t, netip.AddrPortFrom(c.outside.Addr(), port), stream)
	stream.speak(t, far, remote)
	if remote.heard[0] != netip.AddrPortFrom(c.outside.Addr(), port) {
		t.Errorf("the stream comes from %v, the phone named %s:%d", remote.heard, c.outside.Addr(), port)
	}
}
