package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestMW3_RTSPStreams: the server sends RTP and RTCP to the ports that the client asked for, at the address of the control
// connection, and both arrive at the client's own. Without the helper nothing does.
func TestMW3_RTSPStreams(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn+helping("rtsp"))
	server := acceptAt(t, w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], 554))
	used := make(map[netip.Addr]bool)
	for range 4 {
		control := dialPair(t, w.lan, server)
		stream := openMedia(t, w.lan, w.Hosts[0].Addr)
		source := openMedia(t, w.Internet, lab.ServerAddrs[0])
		to := control.setUp(t, stream, source)
		if to%2 != stream.port()%2 {
			t.Errorf("port %d became %d", stream.port(), to)
		}
		outside := control.outside().Addr()
		source.speak(t, netip.AddrPortFrom(outside, to), stream)
		stream.speak(t, netip.AddrPortFrom(lab.ServerAddrs[0], source.port()), source)
		if source.heard[0] != netip.AddrPortFrom(outside, to) || source.heard[1] != netip.AddrPortFrom(outside, to+1) {
			t.Errorf("the client asked for %s:%d and answers from %v", outside, to, source.heard)
		}
		used[outside] = true
	}
	expectAllUplinks(t, w, used)

	w.use(inTurn)
	control := dialPair(t, w.lan, server)
	stream, source := openMedia(t, w.lan, w.Hosts[0].Addr), openMedia(t, w.Internet, lab.ServerAddrs[0])
	if to := control.setUp(t, stream, source); to != stream.port() {
		t.Errorf("without the helper port %d became %d", stream.port(), to)
	}
	source.expectLost(t, netip.AddrPortFrom(control.outside().Addr(), stream.port()), stream)
}

// setUp asks for a stream at the client's ports, has the server answer with its own, and returns where the server is to send.
func (p controlPair) setUp(t testing.TB, client, server media) (to uint16) {
	t.Helper()
	const form = "CSeq: 2\r\nTransport: RTP/AVP;unicast;client_port=%d-%d"
	_, err := fmt.Fprintf(p.client, "SETUP rtsp://203.0.113.1/film RTSP/1.0\r\n"+form+"\r\n\r\n", client.port(), client.port()+1)
	labtest.Must(t, err)
	var next uint16
	if _, err := fmt.Sscanf(p.head(t, p.server), "SETUP rtsp://203.0.113.1/film RTSP/1.0\n"+lf(form), &to, &next); err != nil || next != to+1 {
		t.Fatalf("asked for %d and %d: %v", to, next, err)
	}
	answer := "RTSP/1.0 200 OK\r\n" + form + fmt.Sprintf(";server_port=%d-%d\r\n", server.port(), server.port()+1)
	_, err = fmt.Fprintf(p.server, answer+"\r\n", to, next)
	labtest.Must(t, err)
	if got, want := p.head(t, p.client), lf(fmt.Sprintf(answer, client.port(), client.port()+1)); got != want {
		t.Errorf("the client was answered\n%s\nnot\n%s", got, want)
	}
	return to
}

func lf(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// head reads a message's lines up to the empty one.
func (p controlPair) head(t testing.TB, c net.Conn) (text string) {
	t.Helper()
	for lines := bufio.NewReader(c); ; {
		line, err := lines.ReadString('\n')
		labtest.Must(t, err)
		if line = lf(line); line == "\n" {
			return text
		}
		text += line
	}
}

// media is the two sockets of a stream, RTP on an even port and RTCP on the next.
type media struct {
	conns [2]net.PacketConn
	heard *[2]netip.AddrPort // from where the last packet came
}

// openMedia opens both, until the test ends.
func openMedia(t testing.TB, ns *lab.Namespace, addr netip.Addr) (m media) {
	t.Helper()
	m.heard = new([2]netip.AddrPort)
	for port := 30000; port < 31000; port += 2 {
		low, err := ns.ListenPacket("udp4", netip.AddrPortFrom(addr, uint16(port)).String())
		if err != nil {
			continue
		}
		high, err := ns.ListenPacket("udp4", netip.AddrPortFrom(addr, uint16(port+1)).String())
		if err != nil {
			low.Close()
			continue
		}
		t.Cleanup(func() { low.Close(); high.Close() })
		m.conns = [2]net.PacketConn{low, high}
		return m
	}
	t.Fatal("no ports for a stream")
	return m
}

func (m media) port() uint16 { return addrPort(m.conns[0].LocalAddr()).Port() }

// speak sends a packet of RTP and one of RTCP, and has the other hear them.
func (m media) speak(t testing.TB, to netip.AddrPort, other media) {
	t.Helper()
	for i, c := range m.conns {
		text := fmt.Sprintf("packet %d for %s", i, to)
		labtest.Must(t, write(c, netip.AddrPortFrom(to.Addr(), to.Port()+uint16(i)), text))
		labtest.Must(t, other.conns[i].SetReadDeadline(time.Now().Add(patience)))
		got := make([]byte, 100)
		n, from, err := other.conns[i].ReadFrom(got)
		if err != nil || string(got[:n]) != text {
			t.Fatalf("%s: got %q, %v", text, got[:n], err)
		}
		other.heard[i] = addrPort(from)
	}
}

// expectLost sends the same, and has the other hear nothing.
func (m media) expectLost(t testing.TB, to netip.AddrPort, other media) {
	t.Helper()
	labtest.Must(t, write(m.conns[0], to, "lost"))
	labtest.Must(t, other.conns[0].SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if _, from, err := other.conns[0].ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("a packet to %s came from %s", to, from)
	}
}

func write(c net.PacketConn, to netip.AddrPort, text string) error {
	_, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(to))
	return err
}
