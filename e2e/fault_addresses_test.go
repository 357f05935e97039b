package e2e

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestFault31_DeprecatedWhileLossy: an address that is deprecated on an uplink which loses a lot is no longer used for new sessions nor by
// the probes, which find the loss; what it carries goes on until it is gone.
func TestFault31_DeprecatedWhileLossy(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn+often)
	lossy, other := w.Uplinks[0], w.Uplinks[1]
	labtest.Must(t, lossy.RemoveRouterV6())
	labtest.Must(t, lossy.Advertise(life, advertised(lossy.PrefixV6(), life)))
	w.awaitUpV6(lossy.Device, func(a netip.Addr) bool { return a != lossy.AddrV6() })
	deprecated := w.uplink(lossy.Device).IPv6.Addresses[0]
	old := w.connect(w.lan, lossy.Device)
	nftablesRules(t, lossy.ISP, "table ip6 lossy {\n chain forward { type filter hook forward priority 0; numgen random mod 100 < 20 drop; }\n}\n")
	fresh, err := lossy.Delegate()
	labtest.Must(t, err)

	begun := time.Now()
	visits := keepVisitingOver(overIPv6, t, w.lan)
	_, err = labtest.Capture(t, w.Gateway, lossy.Device).AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
		return p.Outgoing && fresh.Contains(p.Src.Addr()) && p.Dst.Addr() == lab.ProbeTargetsV6[0]
	}, func() error {
		return lossy.Advertise(life, advertised(lossy.PrefixV6(), 0), advertised(fresh, life))
	})
	labtest.Must(t, err)
	rebound := time.Now()
	degraded := w.events.await("degraded", begun, func(e api.Event) bool {
		return e.Uplink == lossy.Device && e.Family == api.FamilyIPv6 && e.To == api.StateDegraded
	})
	t.Logf("after %s: %s", degraded.Time.Sub(begun), degraded.Message)
	visits.by(other.AddrV6(), degraded.at.Add(10*visitPace))
	visits.only(rebound, time.Now(), func(a netip.Addr) bool { return a == other.AddrV6() || fresh.Contains(a) })
	visits.only(degraded.at, time.Now(), func(a netip.Addr) bool { return a == other.AddrV6() })
	for range 5 {
		labtest.Must(t, old.talk())
	}
	changeAddress(t, w.Gateway, lossy.Device, netip.PrefixFrom(deprecated, 64), (*netlink.Handle).AddrDel)
	err = nil
	eventually(t, "the end of what used the address", func() bool { err = old.talk(); return err != nil })
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("it was told: %v", err)
	}
}

// changeAddress adds an address to a device, or deletes it.
func changeAddress(t testing.TB, ns *lab.Namespace, device string, a netip.Prefix, do func(*netlink.Handle, netlink.Link, *netlink.Addr) error) {
	t.Helper()
	link, err := ns.Handle().LinkByName(device)
	labtest.Must(t, err)
	labtest.Must(t, do(ns.Handle(), link, &netlink.Addr{IPNet: ipNet(a)}))
}

// TestFault62_HostRoams: a host of the LAN that goes on with another hardware address, as by Wi-Fi instead of a cable, keeps its sessions.
func TestFault62_HostRoams(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	w.awaitShortcut(datapath(t) == api.DatapathKernel)
	labtest.Must(t, w.lan.Sysctl("net/ipv4/conf/"+lab.DeviceHost+"/arp_notify", "1"))
	flows := map[string]*flow{"tcp": keepStreaming(t, w.lan), "udp": keepAskingUDP(t, w.lan)}
	expectMoving(t, flows)
	quiet := w.connect(w.lan, "wan1")
	begun := time.Now()
	setMAC(t, w.lan, lab.DeviceHost, "02:00:0a:00:00:77")
	labtest.Must(t, quiet.talk())
	if took := time.Since(begun); took > repairBound {
		t.Errorf("answers came to the new address only after %s", took)
	}
	expectMoving(t, flows)
}

// TestFault62_AddressOfAnother: a host of the LAN that is given another's address gets what is sent there at once, also for sessions
// that look like those of the one before, and is not disturbed by what still comes for those.
func TestFault62_AddressOfAnother(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 2}, inTurn)
	w.awaitShortcut(datapath(t) == api.DatapathKernel)
	before, after := w.Hosts[0], w.Hosts[1]
	keepStreaming(t, before.Namespace) // goes on to come
	used := netip.AddrPortFrom(before.Addr, 6000)
	w.useAs(before, used)
	changeAddress(t, before.Namespace, lab.DeviceHost, netip.PrefixFrom(before.Addr, 24), (*netlink.Handle).AddrDel)
	changeAddress(t, after.Namespace, lab.DeviceHost, netip.PrefixFrom(before.Addr, 24), (*netlink.Handle).AddrAdd)
	link, err := after.Handle().LinkByName(lab.DeviceHost)
	labtest.Must(t, err)
	inject(t, after.Namespace, lab.DeviceHost, claimOf(t, before.Addr, link.Attrs().HardwareAddr))
	begun := time.Now()
	w.useAs(after, used)
	took := time.Since(begun)
	t.Logf("connected anew after %s", took)
	if took > repairBound {
		t.Errorf("the new host had to wait for %s", took)
	}
	labtest.Must(t, w.connect(after.Namespace, "wan1").talk())
}

// useAs has a host talk from an address and a port over UDP and TCP, and leaves the connection open.
func (w world) useAs(h *lab.Host, from netip.AddrPort) {
	w.t.Helper()
	socket, err := listenUDP(h.Namespace, from)
	labtest.Must(w.t, err)
	defer socket.Close()
	_, err = lab.AskUDP(labtest.Context(w.t), socket, lab.ServerAddrs[0], "hello")
	labtest.Must(w.t, err)
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}
	conn, err := h.DialWith(labtest.Context(w.t), d, "tcp4", echoServer)
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	labtest.Must(w.t, talker{Conn: conn}.talk())
}
