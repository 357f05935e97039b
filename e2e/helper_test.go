package e2e

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// payloads of UDP that look like those that a helper would change.
var helperLike = map[uint16]string{
	69:   "\x00\x01file\x00octet\x00",
	554:  "SETUP rtsp://203.0.113.1/a RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=4588-4589\r\n\r\n",
	5060: "INVITE sip:b@203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060\r\nContact: <sip:a@10.0.0.2>\r\n\r\nc=IN IP4 10.0.0.2\r\nm=audio 4000 RTP/AVP 0\r\n",
	7777: "PORT 10,0,0,2,200,1\r\n10.0.0.2:4000 \x0a\x00\x00\x02",
}

// TestRFC4787_REQ10_NoHelperForUDP: without any configuration, payloads of UDP pass byte for byte, whatever they look like.
func TestRFC4787_REQ10_NoHelperForUDP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "")
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		for port, payload := range helperLike {
			server, err := listenUDP(w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], port))
			labtest.Must(t, err)
			client, err := ns.DialWith(labtest.Context(t), &net.Dialer{}, "udp4", server.LocalAddr().String())
			labtest.Must(t, err)
			_, err = client.Write([]byte(payload))
			labtest.Must(t, err)
			got, from := receiveFrom(t, server)
			if string(got) != payload {
				t.Errorf("%s, port %d: %q became %q", ns.Name(), port, payload, got)
			}
			answer := strings.ReplaceAll(payload, "10.0.0.2", from.IP.String())
			_, err = server.WriteTo([]byte(answer), from)
			labtest.Must(t, err)
			if got, _ := receiveFrom(t, client.(net.PacketConn)); string(got) != answer {
				t.Errorf("%s, port %d: the answer %q became %q", ns.Name(), port, answer, got)
			}
			client.Close()
			server.Close()
		}
	}
}

// receiveFrom waits for one datagram.
func receiveFrom(t testing.TB, conn net.PacketConn) ([]byte, *net.UDPAddr) {
	t.Helper()
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 1<<16)
	n, from, err := conn.ReadFrom(b)
	labtest.Must(t, err)
	addr, _ := from.(*net.UDPAddr)
	return b[:n], addr
}

// tftpGet asks a TFTP server for a file of so many blocks, each answered from the port that the first came from (RFC 1350 §4).
// False when nobody answers.
func tftpGet(t testing.TB, w world, blocks int) bool {
	t.Helper()
	const blockLen = 512
	server, err := listenUDP(w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], 69))
	labtest.Must(t, err)
	defer server.Close()
	client, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer client.Close()
	_, err = client.WriteTo([]byte("\x00\x01file\x00octet\x00"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(lab.ServerAddrs[0], 69)))
	labtest.Must(t, err)
	_, from := receiveFrom(t, server)
	transfer, err := listenUDP(w.Internet, netip.AddrPortFrom(lab.ServerAddrs[0], 0))
	labtest.Must(t, err)
	defer transfer.Close()
	for n := 1; n <= blocks; n++ {
		data := append([]byte{0, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{byte(n)}, blockLen)...)
		_, err = transfer.WriteTo(data, from)
		labtest.Must(t, err)
		b := make([]byte, 2048)
		labtest.Must(t, client.SetReadDeadline(time.Now().Add(time.Second)))
		got, at, err := client.ReadFrom(b)
		if err != nil && n == 1 {
			return false
		}
		labtest.Must(t, err)
		if !bytes.Equal(b[:got], data) {
			t.Fatalf("block %d became %q", n, b[:got])
		}
		_, err = client.WriteTo([]byte{0, 4, byte(n >> 8), byte(n)}, at)
		labtest.Must(t, err)
		if ack, _ := receiveFrom(t, transfer); !bytes.Equal(ack, []byte{0, 4, byte(n >> 8), byte(n)}) {
			t.Fatalf("the acknowledgement of block %d became %q", n, ack)
		}
	}
	return true
}

// TestMW3_TFTPAnswers: under the strictest filter, the answer of a server from a port that nobody knew comes in with the
// helper, by the uplink of the request, and not without.
func TestMW3_TFTPAnswers(t *testing.T) {
	t.Parallel()
	const strict = "nat: {filtering: {udp: address_and_port_dependent}}\n" + inTurn
	w := begin(t, lab.Options{}, strict)
	if tftpGet(t, w, 1) {
		t.Error("a server answered without the helper")
	}
	w.use(strict + "helpers: {tftp: {enabled: true}}\n")
	for range 4 {
		if !tftpGet(t, w, 40) {
			t.Error("nobody answered with the helper")
		}
	}
}
