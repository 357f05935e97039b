package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostPortForwards: streams by a port forward and by a service of the host, on each uplink, run for long beside the LAN's
// own balanced sessions, also while the other uplink is dead.
func TestHostPortForwards(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{shaped(50), shaped(50)}}, inTurn)
	const toLAN, toHost = 8443, 8022
	serveTCP(t, w.lan, toLAN)
	serveTCP(t, w.Gateway, toHost)
	f := newForwarding(t, w.Gateway, w.family)
	for _, u := range w.Uplinks {
		f.add(u.Device, unix.IPPROTO_TCP, toLAN, netip.AddrPortFrom(w.Hosts[0].Addr, toLAN))
	}
	labtest.Must(t, f.Flush())
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	flows := make(map[string]*flow)
	for _, u := range w.Uplinks {
		for _, port := range []uint16{toLAN, toHost} {
			service := netip.AddrPortFrom(u.Addr(), port).String()
			flows[service] = keepStreamingTo(t, w.Internet, service)
		}
	}
	expectMoving(t, flows)
	expectAllUplinks(t, w, visitAll(t, w, w.lan))
	expectMoving(t, flows)

	dead := w.Uplinks[0]
	labtest.Must(t, dead.SetFaults(lab.Blackhole))
	w.awaitState(dead.Device, api.StateDown)
	rest := make(map[string]*flow)
	for name, one := range flows {
		if netip.MustParseAddrPort(name).Addr() != dead.Addr() {
			rest[name] = one
		}
	}
	expectMoving(t, rest)
	online(t, w.lan)
	labtest.Must(t, dead.SetFaults())
	w.awaitState(dead.Device, api.StateUp)
	expectMoving(t, flows)
}

// TestHostSticksToTheAddressItGot: a UDP socket of the host that answers by the device and address where it was spoken to, as
// wireguard-go and others do, goes on to reach a server that it asked first.
func TestHostSticksToTheAddressItGot(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	for range 2 * len(w.Uplinks) {
		if err := stick(t, w.Gateway); err != nil {
			t.Error(err)
		}
	}
}

// stick has a conversation in which each packet leaves as the last one came.
func stick(t testing.TB, ns *lab.Namespace) error {
	t.Helper()
	conn, err := ns.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	labtest.Must(t, onSocket(udp, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }))
	server := netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho)
	buf, control := make([]byte, 1500), []byte(nil)
	for i := range 5 {
		labtest.Must(t, udp.SetDeadline(time.Now().Add(patience/4)))
		if _, _, err := udp.WriteMsgUDPAddrPort(fmt.Appendf(nil, "packet %d", i), control, server); err != nil {
			return fmt.Errorf("send packet %d: %w", i, err)
		}
		got := make([]byte, 128)
		_, n, _, _, err := udp.ReadMsgUDPAddrPort(buf, got)
		if err != nil {
			return fmt.Errorf("receive packet %d: %w", i, err)
		}
		control = got[:n]
	}
	return nil
}
