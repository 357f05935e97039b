package daemon

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const (
	ours   = "198.18.73.1"
	others = "198.18.74.1"
)

// peers is a namespace with our address and another one, and a server for both.
func peers(t *testing.T) (ns *lab.Namespace, server net.Listener) {
	t.Helper()
	ns = labtest.Namespace(t, "host")
	lo, err := ns.Handle().LinkByName("lo")
	labtest.Must(t, err)
	for _, a := range []string{ours, others} {
		labtest.Must(t, ns.Handle().AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(32, 32)}}))
	}
	server, err = ns.Listen("tcp4", "127.0.0.1:0")
	labtest.Must(t, err)
	t.Cleanup(func() { server.Close() })
	return ns, server
}

// dialFrom connects to the server, from an address and perhaps by a device.
func dialFrom(t *testing.T, ns *lab.Namespace, network string, local net.Addr, to string) net.Conn {
	t.Helper()
	conn, err := ns.DialWith(labtest.Context(t), &net.Dialer{LocalAddr: local}, network, to)
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	labtest.Must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn
}

func TestOnlyConnectionsFromOurAddressAreClosed(t *testing.T) {
	ns, server := peers(t)
	to := server.Addr().String()
	tcp := func(a string) net.Conn { return dialFrom(t, ns, "tcp4", &net.TCPAddr{IP: net.ParseIP(a)}, to) }
	udp := func(a string) net.Conn { return dialFrom(t, ns, "udp4", &net.UDPAddr{IP: net.ParseIP(a)}, to) }
	doomed := []net.Conn{tcp(ours), udp(ours)}
	safe := []net.Conn{tcp(others), udp(others)}
	mapped := mappedSocket(t, ns, server.Addr().(*net.TCPAddr).Port)
	service, err := ns.Listen("tcp4", ours+":0")
	labtest.Must(t, err)
	defer service.Close()

	closed := 0
	labtest.Must(t, ns.Do(func() (err error) { closed, err = closeSockets(netip.MustParseAddr(ours)); return err }))
	if closed != len(doomed)+1 {
		t.Errorf("%d were closed", closed)
	}
	for _, conn := range doomed {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("%s from %s: %v", conn.LocalAddr().Network(), conn.LocalAddr(), err)
		}
	}
	if pending, err := unix.GetsockoptInt(mapped, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || syscall.Errno(pending) != unix.ECONNABORTED {
		t.Errorf("IPv4 of a socket of IPv6: %v, %v", syscall.Errno(pending), err)
	}
	for _, conn := range safe {
		if _, err := conn.Write([]byte("still here")); err != nil {
			t.Errorf("%s from %s: %v", conn.LocalAddr().Network(), conn.LocalAddr(), err)
		}
	}
	dialFrom(t, ns, "tcp4", nil, service.Addr().String())
}

// mappedSocket is connected to the server with our address as ::ffff:198.18.73.1, as programs do that speak both IPv4 and
// IPv6, and bound to a device.
func mappedSocket(t *testing.T, ns *lab.Namespace, port int) (fd int) {
	t.Helper()
	labtest.Must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	labtest.Must(t, unix.BindToDevice(fd, "lo"))
	labtest.Must(t, unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte(net.ParseIP(ours).To16())}))
	labtest.Must(t, unix.Connect(fd, &unix.SockaddrInet6{Port: port, Addr: [16]byte(net.ParseIP("127.0.0.1").To16())}))
	return fd
}
