package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestLifetimes: an idle session ends on time, and one with packets in either direction alone outlives many lifetimes, also
// where nobody but the kernel sees them. The times that are listed follow.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	const life, late, lives = 2 * time.Second, 4 * time.Second, 5
	w := begin(t, lab.Options{}, inTurn+"nat: {timeouts: {udp: 2s}}\n")
	remote := netip.AddrPortFrom(lab.ServerAddrs[0], 9000)
	server, err := listenUDP(w.Internet, remote)
	labtest.Must(t, err)
	defer server.Close()
	out, outside := openDatagrams(t, w, server)
	in, target := openDatagrams(t, w, server)
	idle, _ := openDatagrams(t, w, server)
	silent := time.Now()
	stop := make(chan struct{})
	defer close(stop)
	go keepSending(stop, func() error { _, err := out.Write([]byte("out")); return err })
	go keepSending(stop, func() error { _, err := server.WriteTo([]byte("in"), net.UDPAddrFromAddrPort(target)); return err })
	go discard(in)

	packets, _ := w.handed()
	oldest, ended := int64(0), time.Duration(0)
	for ; time.Since(silent) < lives*life; <-time.After(50 * time.Millisecond) {
		w.expectActive("outbound", out, outside)
		w.expectActive("inbound", in, target)
		s, ok := w.session("udp", local(idle).Port())
		oldest = max(oldest, s.IdleS)
		if !ok && ended == 0 {
			ended = time.Since(silent)
		}
	}
	t.Logf("the idle session ended after %s", ended)
	if ended < life-100*time.Millisecond || ended > late {
		t.Errorf("the idle session ended after %s", ended)
	}
	if oldest != int64(life/time.Second) && oldest != int64(life/time.Second)-1 {
		t.Errorf("the idle session was listed as idle for %d s at most", oldest)
	}
	if now, _ := w.handed(); datapath(t) == api.DatapathKernel && now-packets > 50 {
		t.Errorf("%d packets came to the daemon", now-packets)
	}
	if s, _ := w.session("udp", local(in).Port()); s.AgeS < int64(lives*life/time.Second)-1 || s.BytesIn == 0 {
		t.Errorf("listed as %+v", s)
	}
}

// expectActive fails the test unless a session is listed as what it was and as not idle.
func (w world) expectActive(name string, conn net.Conn, outside netip.AddrPort) {
	w.t.Helper()
	if s, ok := w.session("udp", local(conn).Port()); !ok || s.Outside != outside || s.IdleS > 1 {
		w.t.Fatalf("%s packets alone: listed %t, %+v, outside was %s", name, ok, s, outside)
	}
}

// openDatagrams begins a session with a server, which answers once, and returns its outside.
func openDatagrams(t testing.TB, w world, server net.PacketConn) (inside net.Conn, outside netip.AddrPort) {
	t.Helper()
	inside, err := w.lan.Dial(labtest.Context(t), "udp4", server.LocalAddr().String())
	labtest.Must(t, err)
	t.Cleanup(func() { inside.Close() })
	_, err = inside.Write([]byte("hello"))
	labtest.Must(t, err)
	buf := make([]byte, 100)
	labtest.Must(t, server.SetReadDeadline(time.Now().Add(patience)))
	_, from, err := server.ReadFrom(buf)
	labtest.Must(t, err)
	_, err = server.WriteTo([]byte("hello"), from)
	labtest.Must(t, err)
	labtest.Must(t, inside.SetReadDeadline(time.Now().Add(patience)))
	_, err = inside.Read(buf)
	labtest.Must(t, err)
	return inside, netip.MustParseAddrPort(from.String())
}

// keepSending sends every 100 ms until stop is closed.
func keepSending(stop <-chan struct{}, send func() error) {
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-stop:
			return
		case <-pace.C:
			_ = send() // what is lost, the session misses
		}
	}
}

// discard reads what arrives until the connection is closed.
func discard(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Time{})
	for buf := make([]byte, 1<<16); ; {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

func local(c interface{ LocalAddr() net.Addr }) netip.AddrPort {
	return netip.MustParseAddrPort(c.LocalAddr().String())
}
