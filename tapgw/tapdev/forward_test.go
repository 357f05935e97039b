package tapdev_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks/wire/batchio"
)

// transfer sends n random bytes up one TCP connection and receives them back, and compares.
func transfer(t *testing.T, from, to *lab.Namespace, addr string, n int64) {
	t.Helper()
	l, err := to.Listen("tcp4", addr)
	labtest.Must(t, err)
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp4", addr)
	labtest.Must(t, err)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	echo(t, c, n)
}

func echo(t *testing.T, c net.Conn, n int64) {
	t.Helper()
	sent, got := sha256.New(), sha256.New()
	go func() {
		_, _ = io.CopyN(io.MultiWriter(c, sent), rand.NewChaCha8([32]byte{1}), n)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if m, err := io.Copy(got, c); err != nil || m != n {
		t.Fatalf("received %d of %d bytes: %v", m, n, err)
	}
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Error("what came back differs")
	}
}

// TestForwardBothWays carries TCP from the LAN through TAP and uplink and back, in super-packets and in single ones.
func TestForwardBothWays(t *testing.T) {
	offloads := map[string]lab.Offloads{
		"super-packets": {TxChecksum: true, RxChecksum: true, TSO: true, GSO: true, GRO: true},
		"plain":         {},
	}
	for name, o := range offloads {
		for _, queues := range []int{1, 2} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, queues)
				labtest.Must(t, w.lan.SetOffloads("eth0", o))
				labtest.Must(t, w.isp.SetOffloads("cust", o))
				w.forward(lanAddr, 32)
				transfer(t, w.lan, w.isp, server.String()+":5001", 20<<20)
				s := w.port.Stats()
				if s.SentBytes < 20<<20 || s.ReceivedBytes < 20<<20 {
					t.Errorf("not forwarded by us: %+v", s)
				}
				if whole := s.SentBytes/s.Sent > 4000; whole != o.TSO {
					t.Errorf("%d bytes a frame", s.SentBytes/s.Sent)
				}
			})
		}
	}
}

// TestForwardFromTheHost: the host's own connections leave by the TAP's address.
func TestForwardFromTheHost(t *testing.T) {
	w := newWorld(t, 1)
	w.forward(tapPre.Addr(), 32)
	transfer(t, w.gw, w.isp, server.String()+":5001", 20<<20)
}

func TestNoAllocations(t *testing.T) {
	w := newWorld(t, 1)
	c, err := w.lan.ListenPacket("udp4", "10.0.0.2:4000")
	labtest.Must(t, err)
	defer func() { _ = c.Close() }()
	to := &net.UDPAddr{IP: server.AsSlice(), Port: 9}
	bufs, sizes, s := batchio.Buffers(4), make([]int, 4), w.port.Sender()
	q := w.dev.Queues()[0]
	_, err = c.WriteTo([]byte("first"), to)
	labtest.Must(t, err)
	n, err := q.ReadBatch(bufs, sizes)
	labtest.Must(t, err)
	frame := append([]byte(nil), bufs[n-1][:sizes[n-1]]...)
	allocs := testing.AllocsPerRun(200, func() {
		if err := w.dev.Queues()[0].Write(frame); err != nil {
			t.Error(err)
		}
		s.Queue(frame)
		_ = s.Flush()
	})
	if allocs != 0 {
		t.Errorf("%v allocations per frame written", allocs)
	}
	fd := rawSocket(t, w.gw, "tapgw0")
	allocs = testing.AllocsPerRun(200, func() {
		sendRaw(t, fd, frame[10:])
		if _, err := q.ReadBatch(bufs, sizes); err != nil {
			t.Error(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per batch read", allocs)
	}
}
