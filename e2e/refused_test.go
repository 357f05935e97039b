package e2e

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestShortcutAndRefusals: what the host's routing refuses does not reach the LAN by the shortcut either, and connections
// live through that.
func TestShortcutAndRefusals(t *testing.T) {
	t.Parallel()
	w := beginShortcut(t, lab.Options{})
	host := &net.IPNet{IP: w.Hosts[0].Addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	flows := map[string]*flow{"tcp": keepStreaming(t, w.lan), "udp": keepAskingUDP(t, w.lan)}
	quiet := w.connect(w.lan, "wan1")
	for _, kind := range []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW} {
		w.expectBypassed("without refusals", func() { expectMoving(t, flows) })
		refused := &netlink.Route{Dst: host, Type: kind}
		labtest.Must(t, w.Gateway.Handle().RouteAdd(refused))
		for name, f := range flows {
			eventually(t, "the end of "+name, f.rests)
		}
		labtest.Must(t, w.Gateway.Handle().RouteDel(refused))
		expectMoving(t, flows)
		labtest.Must(t, quiet.talk())
	}
}

// rests reports whether nothing comes back for longer than packets are ever apart.
func (f *flow) rests() bool {
	before := f.moved.Load()
	<-time.After(200 * time.Millisecond)
	return f.moved.Load() == before
}
