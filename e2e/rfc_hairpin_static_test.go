package e2e

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestRFC4787_REQ9_HairpinToStaticAddress: a LAN host reaches another one by that one's own outside address, on any port,
// with pings and in fragments, sees the answers come from there, and is seen by its outside address; nothing of it leaves by
// an uplink. What the host with that address sends to the gateway's own still reaches the gateway.
func TestRFC4787_REQ9_HairpinToStaticAddress(t *testing.T) {
	t.Parallel()
	w, outside := staticWorld(t)
	awaitStaticTurning(t, w, outside)
	watch(t, w.Gateway, lab.DeviceLAN, "", nil)
	for _, u := range w.Uplinks {
		watch(t, w.Gateway, u.Device, "to an address of ours", func(p *lab.Packet) bool {
			return p.Outgoing && p.IP != nil && (p.Dst.Addr() == outside || p.Dst.Addr() == u.Addr())
		})
	}
	serveTCP(t, w.Gateway, 7777) // not to be met
	serveTCP(t, w.Gateway, 700)
	serveTCP(t, w.lan, 22)
	other, ctx := w.Hosts[1].Namespace, labtest.Context(t)
	for range 2 * len(w.Uplinks) {
		conn, err := other.Dial(ctx, "tcp4", netip.AddrPortFrom(outside, 22).String())
		labtest.Must(t, err)
		defer conn.Close()
		labtest.Must(t, echo(conn, strings.Repeat("to its own port 22 ", 5000)))
		for _, n := range []int{100, 4000} {
			labtest.Must(t, askService(ctx, other, netip.AddrPortFrom(outside, 53), n))
		}
		_, err = other.Ping(ctx, outside)
		labtest.Must(t, err)
	}
	expectRefusal(t, other, "tcp4", netip.AddrPortFrom(outside, 7777)) // by the host with that address
	for _, s := range w.sessionsTo(t, outside) {
		if s.Inside.Addr() != w.Hosts[0].Addr || s.Remote.Addr() == w.Hosts[1].Addr {
			t.Errorf("%+v", s)
		}
	}
	for _, u := range w.Uplinks {
		_, err := w.lan.Ping(ctx, u.Addr())
		labtest.Must(t, err)
		conn, err := w.lan.Dial(ctx, "tcp4", netip.AddrPortFrom(u.Addr(), 700).String())
		labtest.Must(t, err)
		defer conn.Close()
		labtest.Must(t, echo(conn, "to the gateway"))
		mapUDP(t, w, other, u) // something else leaves
	}
}

// awaitStaticTurning serves UDP on the first host, and waits until the other reaches it: the rules for that come a moment
// after the gateway has heard of the LAN.
func awaitStaticTurning(t testing.TB, w world, outside netip.Addr) {
	t.Helper()
	serveUDP(t, w.lan, netip.AddrPortFrom(w.Hosts[0].Addr, 53))
	conn, err := w.Hosts[1].ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	eventually(t, "a packet turning", func() bool {
		_, err := conn.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(outside, 53)))
		labtest.Must(t, err)
		labtest.Must(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, _, err = conn.ReadFrom(make([]byte, 100))
		return err == nil
	})
}
