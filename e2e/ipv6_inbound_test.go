package e2e

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestInboundIPv6: services of the host are reached at its IPv6 addresses, on whatever port, in fragments and behind extension
// headers, beside sessions from inside.
func TestInboundIPv6(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	ctx := labtest.Context(t)
	online(t, w.Gateway)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
		_, err := w.Internet.Ping(ctx, u.AddrV6())
		labtest.Must(t, err)
		for _, port := range []uint16{portBelow, portInside, portEphemeral} {
			service := netip.AddrPortFrom(u.AddrV6(), port)
			serveUDP(t, w.Gateway, service)
			for _, size := range []int{10, 1000, 3000} {
				labtest.Must(t, askService(ctx, w.Internet, service, size))
			}
			for _, option := range []int{unix.IPV6_HOPOPTS, unix.IPV6_DSTOPTS} {
				askExtended(t, w.Internet, service, option)
			}
		}
		l, err := w.Gateway.Listen("tcp6", netip.AddrPortFrom(u.AddrV6(), portInside).String())
		labtest.Must(t, err)
		defer l.Close()
		conn, err := w.Internet.Dial(ctx, "tcp6", l.Addr().String())
		labtest.Must(t, err)
		labtest.Must(t, conn.Close())
	}
	online(t, w.Gateway)
}

// askExtended asks a UDP service with an extension header that says nothing.
func askExtended(t *testing.T, ns *lab.Namespace, service netip.AddrPort, option int) {
	t.Helper()
	dialer := &net.Dialer{Timeout: patience, Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, option, string([]byte{0, 0, 1, 4, 0, 0, 0, 0}))
		}); failed != nil {
			return failed
		}
		return err
	}}
	conn, err := ns.DialWith(labtest.Context(t), dialer, "udp6", service.String())
	labtest.Must(t, err)
	defer conn.Close()
	labtest.Must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write([]byte("extended"))
	labtest.Must(t, err)
	if n, err := conn.Read(make([]byte, 100)); err != nil || n != 8 {
		t.Errorf("%s did not answer what came with option %d: %d bytes, %v", service, option, n, err)
	}
}

// TestKilledDaemonLeavesIPv6: the LAN goes on with IPv6 at once, masqueraded, until somebody cleans up.
func TestKilledDaemonLeavesIPv6(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	eventually(t, "rules for the LAN", func() bool { return w.hasTable("tapgw_fallback") })
	w.kill()
	eventually(t, "an answer without the daemon", func() bool {
		v := visitFor(w.lan, lab.ServerAddrsV6[0], time.Second)
		if v.err == nil && v.outside != w.Uplinks[0].AddrV6() && v.outside != w.Uplinks[1].AddrV6() {
			t.Errorf("the server saw %s", v.outside)
		}
		return v.err == nil
	})
	if out, status := w.tapgw("cleanup"); status != 0 {
		t.Errorf("cleanup ends with %d\n%s", status, out)
	}
	if w.hasTable("tapgw_fallback") {
		t.Error("cleanup left a table behind")
	}
}
