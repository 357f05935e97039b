package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// selfSigned is a TLS configuration for both ends.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	labtest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"server"}}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	labtest.Must(t, err)
	certificate, err := x509.ParseCertificate(der)
	labtest.Must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		RootCAs:      roots, ServerName: "server", NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13,
	}
}

// connectQUIC connects ns to a server that echoes the first stream, and returns that stream and the server's connection.
func connectQUIC(t testing.TB, w world, ns *lab.Namespace) (*quic.Stream, *quic.Conn) {
	t.Helper()
	ctx, settings := labtest.Context(t), selfSigned(t)
	transport := func(ns *lab.Namespace, at netip.AddrPort) *quic.Transport {
		conn, err := listenUDP(ns, at)
		labtest.Must(t, err)
		tr := &quic.Transport{Conn: conn}
		t.Cleanup(func() { tr.Close(); conn.Close() })
		return tr
	}
	service := netip.AddrPortFrom(lab.ServerAddrs[0], 443)
	listener, err := transport(w.Internet, service).Listen(settings, nil)
	labtest.Must(t, err)
	accepted := make(chan *quic.Conn, 1)
	go serveQUIC(ctx, listener, accepted)
	conn, err := transport(ns, netip.AddrPortFrom(netip.IPv4Unspecified(), 0)).Dial(ctx, net.UDPAddrFromAddrPort(service), settings, nil)
	labtest.Must(t, err)
	stream, err := conn.OpenStreamSync(ctx)
	labtest.Must(t, err)
	labtest.Must(t, stream.SetDeadline(time.Now().Add(2*patience)))
	return stream, <-accepted
}

func serveQUIC(ctx context.Context, l *quic.Listener, accepted chan<- *quic.Conn) {
	conn, err := l.Accept(ctx)
	if err != nil {
		return
	}
	accepted <- conn
	if stream, err := conn.AcceptStream(ctx); err == nil {
		_, _ = io.Copy(stream, stream)
	}
}

// echoQUIC has n bytes echoed.
func echoQUIC(t testing.TB, stream *quic.Stream, n int) {
	t.Helper()
	block, back := bytes.Repeat([]byte("quic"), n/4), make([]byte, n)
	sent := make(chan error, 1)
	go func() { _, err := stream.Write(block); sent <- err }()
	_, err := io.ReadFull(stream, back)
	labtest.Must(t, err)
	labtest.Must(t, <-sent)
	if !bytes.Equal(block, back) {
		t.Error("other bytes came back")
	}
}

// TestRFC9000_QUICSurvivesFailover: a connection transfers by one uplink, and goes on by the other when that one fails: the
// server sees another address and validates the path.
func TestRFC9000_QUICSurvivesFailover(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"lan", "host"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{}, preferFirst)
			ns := map[string]*lab.Namespace{"lan": w.lan, "host": w.Gateway}[from]
			first, second := w.Uplinks[0], w.Uplinks[1]
			stream, server := connectQUIC(t, w, ns)
			echoQUIC(t, stream, 8<<20)
			remote := func() netip.Addr { return server.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() }
			if remote() != first.Addr() {
				t.Errorf("the server sees %s", remote())
			}
			begun := time.Now()
			labtest.Must(t, first.SetFaults(lab.Blackhole))
			w.events.state(first.Device, api.StateDown, begun)
			echoQUIC(t, stream, 8<<20)
			if remote() != second.Addr() {
				t.Errorf("after the failure the server sees %s", remote())
			}
		})
	}
}

// TestFailover_QUICAtFailback: a long connection that went on by the second uplink returns to the first when that is back, without the
// application noticing, or stays, as on_recover says.
func TestFailover_QUICAtFailback(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"keep", "move"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			testQUICAtFailback(t, how)
		})
	}
}

func testQUICAtFailback(t *testing.T, how string) {
	w := begin(t, lab.Options{}, recovering(how))
	first, second := w.Uplinks[0], w.Uplinks[1]
	stream, server := connectQUIC(t, w, w.lan)
	seenBy := func(u *lab.Uplink) bool {
		echoQUIC(t, stream, 64<<10)
		return addrPortOf(server.RemoteAddr()).Addr().Unmap() == u.Addr()
	}
	begun := time.Now()
	labtest.Must(t, first.SetFaults(lab.Blackhole))
	w.events.state(first.Device, api.StateDown, begun)
	eventually(t, "the connection going on by the second uplink", func() bool { return seenBy(second) })
	healed := time.Now()
	labtest.Must(t, first.SetFaults())
	up := w.events.state(first.Device, api.StateUp, healed)
	if how == "move" {
		eventually(t, "the connection returning", func() bool { return seenBy(first) })
		return
	}
	for time.Since(up.at) < 2*time.Second { // long enough to be told to leave
		if !seenBy(second) {
			t.Fatal("the connection has left")
		}
	}
}
