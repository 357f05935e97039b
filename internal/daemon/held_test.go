package daemon

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// TestLaterSockets: each listing tells of the sockets opened and closed since the one before.
func TestLaterSockets(t *testing.T) {
	ns, d := labtest.Namespace(t, "host"), newTestDaemon(t)
	const port = 20000
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	expect := func(when string, want bool) {
		t.Helper()
		d.services.next = time.Time{}
		labtest.Must(t, ns.Do(func() error {
			d.findServices()
			if d.held.sockets.Load() == nil {
				return fmt.Errorf("%s: nothing is listed", when)
			}
			return nil
		}))
		if got := d.held.listed(packet.ProtoTCP, packet.IPv4(0), port); got != want {
			t.Errorf("%s: held %v", when, got)
		}
	}
	expect("before", false)
	l, err := ns.Listen("tcp4", at.String())
	labtest.Must(t, err)
	expect("open", true)
	labtest.Must(t, l.Close())
	expect("closed", false)
}
