package e2e

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// boundTo binds sockets to a device, as `curl --interface` does.
func boundTo(device string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		return onNew(raw, func(fd int) error { return unix.BindToDevice(fd, device) })
	}
}

// TestBoundSockets: a socket of the host that is bound to the TAP gets all its replies, from the first packet on, also when
// another that was not bound had its port before.
func TestBoundSockets(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	bound := &net.Dialer{Control: boundTo("tapgw0"), Timeout: patience}
	for i := range 10 {
		free := &net.Dialer{LocalAddr: &net.UDPAddr{Port: 21000 + i}}
		for _, d := range []*net.Dialer{free, {LocalAddr: free.LocalAddr, Control: bound.Control}, free} {
			conn, err := w.Gateway.DialWith(labtest.Context(t), d, "udp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho).String())
			labtest.Must(t, err)
			for range 3 {
				labtest.Must(t, askConnected(conn, "hello"))
			}
			labtest.Must(t, conn.Close())
		}
		conn, err := w.Gateway.DialWith(labtest.Context(t), bound, "tcp4", netip.AddrPortFrom(lab.ServerAddrs[i%2], lab.PortTCPEcho).String())
		labtest.Must(t, err)
		labtest.Must(t, conn.SetDeadline(time.Now().Add(patience)))
		for range 3 {
			labtest.Must(t, echo(conn, strings.Repeat("x", 10000)))
		}
		labtest.Must(t, conn.Close())
	}
}

// askConnected asks the UDP echo server at the other end, which puts its client's address before what it repeats.
func askConnected(conn net.Conn, text string) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1500))
	return err
}
