package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestStopClosesConnections: what was connected through the TAP learns of the end at once and can connect anew, and
// connections from other addresses go on.
func TestStopClosesConnections(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	through := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	datagrams := w.dialFrom("udp4", netip.Addr{}, lab.PortUDPEcho)
	around := w.dialFrom("tcp4", w.Uplinks[0].Addr(), lab.PortTCPEcho) // plain routing takes this uplink
	for _, c := range []talker{through, around} {
		labtest.Must(t, c.talk())
	}
	if local := through.LocalAddr().(*net.TCPAddr).IP.String(); local != "198.18.73.1" {
		t.Fatalf("connected from %s, not through the TAP", local)
	}
	waiting := make(chan error, 2)
	for _, c := range []net.Conn{through, datagrams} {
		labtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
		go func() { _, err := c.Read(make([]byte, 1)); waiting <- err }()
	}
	w.stop()
	stopped := time.Now()
	for range cap(waiting) {
		if err := labtest.Ended(t, waiting); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("the application was told: %v", err)
		}
	}
	if took := time.Since(stopped); took > time.Second {
		t.Errorf("the applications were told %s after the stop", took)
	}
	labtest.Must(t, around.talk())
	again := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, again.talk())
}

// dialFrom connects the gateway itself to the Internet, from an address unless that is invalid.
func (w world) dialFrom(network string, source netip.Addr, port uint16) talker {
	w.t.Helper()
	d := &net.Dialer{Timeout: patience}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	conn, err := w.Gateway.DialWith(labtest.Context(w.t), d, network, netip.AddrPortFrom(lab.ServerAddrs[0], port).String())
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	return talker{Conn: conn}
}
