package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labwg"
)

const (
	wgKeepalive = 2 // seconds
	wgPort      = 7100
	wgPace      = 20 * time.Millisecond
)

// wireGuardStall is how long what a server sends into a tunnel does not arrive: its client, who is behind the gateway and has
// nothing to say, is heard again with the next keepalive only.
func wireGuardStall(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	if err := a.openTunnel(); err != nil {
		return 0, err
	}
	inner, err := a.lan.ListenPacket("udp4", labwg.Client.Addr().String()+":0")
	if err != nil {
		return 0, err
	}
	a.closers = append(a.closers, inner)
	server, err := a.Internet.ListenPacket("udp4", netip.AddrPortFrom(labwg.Server.Addr(), wgPort).String())
	if err != nil {
		return 0, err
	}
	a.closers = append(a.closers, server)
	if err := greet(inner, server); err != nil {
		return 0, err
	}
	var r arrivals
	a.tasks.Go(func() { r.readAll(packetReader{inner}) })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.tasks.Go(func() {
		for sleep(ctx, wgPace) == nil {
			_, _ = server.WriteTo([]byte("data"), inner.LocalAddr())
		}
		inner.Close()
	})
	return a.afterDeath(ctx, &r)
}

// openTunnel joins the LAN's host and a server.
func (a *arena) openTunnel() error {
	if err := labwg.AnswerFromServer(a.Internet); err != nil {
		return err
	}
	clientKey, err := labwg.NewKey()
	if err != nil {
		return err
	}
	serverKey, err := labwg.NewKey()
	if err != nil {
		return err
	}
	quiet := func(string) {} // of packets that cannot be sent while an uplink is dead
	server, err := labwg.Open(a.Internet, labwg.Server, serverKey, quiet, labwg.ServerConfig(clientKey.PublicKey(), "10.99.0.2/32")...)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, closer(server.Close))
	client, err := labwg.Open(a.lan.Namespace, labwg.Client, clientKey, quiet, labwg.ClientConfig(serverKey.PublicKey(), wgKeepalive)...)
	if err == nil {
		a.closers = append(a.closers, closer(client.Close))
	}
	return err
}

// closer makes a function without result an io.Closer.
type closer func()

func (c closer) Close() error { c(); return nil }

// greet has the server hear the client once through the tunnel.
func greet(client, server net.PacketConn) error {
	for range 50 { // a handshake may take a while, and what comes before it waits
		if _, err := client.WriteTo([]byte("hello"), server.LocalAddr()); err != nil {
			return err
		}
		if err := server.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		if _, _, err := server.ReadFrom(make([]byte, 16)); err == nil {
			return nil
		}
	}
	return errors.New("the tunnel carries nothing")
}

// packetReader reads the datagrams of a socket.
type packetReader struct{ net.PacketConn }

func (r packetReader) Read(b []byte) (int, error) {
	n, _, err := r.ReadFrom(b)
	return n, err
}

// quicStall is how long a QUIC download of the LAN's stands still.
func quicStall(ctx context.Context, a *arena, _ failoverOptions) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.download(ctx)
	if err != nil {
		return 0, err
	}
	var r arrivals
	a.tasks.Go(func() { r.readAll(stream) })
	defer stream.CancelRead(0)
	return a.afterDeath(ctx, &r)
}

// download opens a QUIC connection to a server that sends all the time.
func (a *arena) download(ctx context.Context) (*quic.ReceiveStream, error) {
	service := netip.AddrPortFrom(lab.ServerAddrs[0], 443)
	settings, err := selfSigned()
	if err != nil {
		return nil, err
	}
	server, err := a.transport(a.Internet, service)
	if err != nil {
		return nil, err
	}
	listener, err := server.Listen(settings, nil)
	if err != nil {
		return nil, err
	}
	a.tasks.Go(func() { sendQUIC(ctx, listener) })
	client, err := a.transport(a.lan.Namespace, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return nil, err
	}
	alive := &quic.Config{KeepAlivePeriod: quicSilence}
	conn, err := client.Dial(ctx, net.UDPAddrFromAddrPort(service), settings, alive)
	if err != nil {
		return nil, err
	}
	return conn.AcceptUniStream(ctx)
}

func (a *arena) transport(ns *lab.Namespace, at netip.AddrPort) (*quic.Transport, error) {
	conn, err := ns.ListenPacket("udp4", at.String())
	if err != nil {
		return nil, err
	}
	t := &quic.Transport{Conn: conn}
	a.closers = append(a.closers, conn, t)
	return t, nil
}

const (
	// quicPace lets little time of the processor go into encryption.
	quicPace = 2 * time.Millisecond
	// quicSilence is after how long a client that gets nothing asks whether the path is alive, as browsers do: one that never
	// says anything cannot be heard by another uplink.
	quicSilence = 500 * time.Millisecond
)

func sendQUIC(ctx context.Context, l *quic.Listener) {
	conn, err := l.Accept(ctx)
	if err != nil {
		return
	}
	stream, err := conn.OpenUniStreamSync(ctx)
	for block := make([]byte, 4<<10); err == nil; {
		if _, err = stream.Write(block); err == nil {
			err = sleep(ctx, quicPace)
		}
	}
	_ = conn.CloseWithError(0, "")
}

// selfSigned is a TLS configuration for both ends.
func selfSigned() (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"server"}}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		RootCAs:      roots, ServerName: "server", NextProtos: []string{"download"}, MinVersion: tls.VersionTLS13,
	}, nil
}
