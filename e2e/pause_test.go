package e2e

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// localOf is the address that a new connection of the gateway has.
func (w world) localOf() string {
	w.t.Helper()
	c := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(w.t, c.talk())
	return c.LocalAddr().(*net.TCPAddr).IP.String()
}

// TestPauseLeavesTheHostItsRoutes: new connections of the host and the LAN leave plainly; those of the host go on when the pause begins and
// when it ends, those of the LAN are reset. A stop meanwhile leaves no trace.
func TestPauseLeavesTheHostItsRoutes(t *testing.T) {
	t.Parallel()
	g, topology, before := settled(t, lab.Options{}, inTurn)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	first := w.Uplinks[0]
	host := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	labtest.Must(t, host.talk())
	inside := w.connect(w.lan, "wan2")
	w.command("pause", "1h")
	if out := w.command("status"); w.status().PausedUntil.IsZero() || !strings.Contains(out, "tapgw resume") {
		t.Errorf("not shown:\n%s", out)
	}
	w.expectOnly(first) // by the route with the lowest metric
	plain := w.dialFrom("tcp4", netip.Addr{}, lab.PortTCPEcho)
	if local := plain.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); local != first.Addr() {
		t.Errorf("a new connection of the host is from %s", local)
	}
	conn, err := w.lan.Dial(labtest.Context(t), "tcp4", netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho).String())
	labtest.Must(t, err)
	defer conn.Close()
	plainInside := talker{Conn: conn}
	labtest.Must(t, errors.Join(plain.talk(), plainInside.talk()))
	labtest.Must(t, host.talk())
	if err := inside.talk(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection of the LAN: %v", err)
	}
	w.use(inTurn)
	w.expectOnly(first)
	if out, status := w.via("wan2", "true"); status != 1 || !strings.Contains(out, "tapgw resume") {
		t.Errorf("exec: status %d, %s", status, out)
	}
	w.command("resume")
	w.expectBoth()
	labtest.Must(t, errors.Join(host.talk(), plain.talk()))
	if err := plainInside.talk(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection of the LAN that began in the pause: %v", err)
	}
	if local := w.localOf(); local != tapAddr.String() {
		t.Errorf("after the pause a connection is from %s", local)
	}
	w.command("pause", "1h")
	w.stop()
	labtest.Unchanged(t, w.Gateway, before)
}

// TestPauseEndsByItself: nobody has to remember it.
func TestPauseEndsByItself(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	begun := time.Now()
	w.command("pause", "500ms")
	w.events.await("the end of the pause", begun, func(e api.Event) bool { return e.Kind == api.EventResume })
	eventually(t, "captured traffic", func() bool { return w.status().PausedUntil.IsZero() && w.localOf() == tapAddr.String() })
}
