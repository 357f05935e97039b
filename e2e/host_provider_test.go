package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// modemAddr is where modems have their page: on the uplink's cable, outside its subnet.
var modemAddr = netip.MustParseAddr("192.168.100.1")

// TestHostProvidersSubnet: host and LAN reach what a provider has on its own subnet (pages, resolvers) and a modem beside it, by
// that provider's uplink, while the rest is balanced.
func TestHostProvidersSubnet(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	first := w.Uplinks[0]
	w.addModem(first)
	for _, u := range w.Uplinks {
		servers, err := lab.StartServers(u.ISP)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, servers.Close()) })
		watchUplink(t, w.Gateway, u)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			for _, u := range w.Uplinks {
				testNeighbour(t, ns, u.NextHop(), u.Addr())
			}
			testNeighbour(t, ns, modemAddr, first.Addr())
			expectAllUplinks(t, w, visitAll(t, w, ns))
		})
	}
}

// addModem puts the modem's address on the provider's end, and the route there that people add by hand.
func (w world) addModem(u *lab.Uplink) {
	w.t.Helper()
	addTo(w.t, u.ISP, lab.DeviceCustomer, modemAddr)
	index, err := w.Gateway.Index(u.Device)
	labtest.Must(w.t, err)
	labtest.Must(w.t, w.Gateway.Handle().RouteAdd(&netlink.Route{
		LinkIndex: index, Dst: ipNet(netip.PrefixFrom(modemAddr, 24).Masked()), Scope: netlink.SCOPE_LINK,
	}))
}

// addTo gives a device an address of a subnet with 24 bits.
func addTo(t testing.TB, ns *lab.Namespace, device string, a netip.Addr) {
	t.Helper()
	link, err := ns.Handle().LinkByName(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Handle().AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, 24))}))
}

// testNeighbour uses the servers of a neighbour, who must see the uplink's address.
func testNeighbour(t *testing.T, ns *lab.Namespace, server, as netip.Addr) {
	t.Helper()
	ctx := labtest.Context(t)
	seen, err := ns.WhoAmI(ctx, server)
	labtest.Must(t, err)
	conn, err := ns.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	asked, err := lab.AskUDP(ctx, conn, server, "resolve")
	labtest.Must(t, err)
	if seen.Addr() != as || asked.Addr() != as {
		t.Errorf("%s saw %s and %s, not %s", server, seen, asked, as)
	}
	_, err = ns.BulkDownload(ctx, server, 1, 4<<20)
	labtest.Must(t, err)
	_, err = ns.Ping(ctx, server)
	labtest.Must(t, err)
}

// TestHostDHCP: a client on an uplink gets what is sent to it while it asks everyone, and renews by the address that it has.
func TestHostDHCP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	watch(t, w.Gateway, "tapgw0", "of a DHCP client", func(p *lab.Packet) bool { return p.UDP != nil && p.UDP.DstPort == 67 })
	for _, u := range w.Uplinks {
		seen := serveDHCP(t, u.ISP)
		for name, to := range map[string]string{"everyone": "255.255.255.255:67", "the server": u.NextHop().String() + ":67"} {
			for _, device := range []string{u.Device, ""} {
				if device == "" && name == "everyone" {
					continue // clients bind for that
				}
				answers, err := askDHCP(t, w.Gateway, device, to)
				if err != nil || answers != 2 {
					t.Errorf("%s asked %s (bound to %q): %d answers (%v)", u.Device, name, device, answers, err)
				}
				if from := <-seen; from != netip.AddrPortFrom(u.Addr(), 68) {
					t.Errorf("%s asked %s (bound to %q) as %s", u.Device, name, device, from)
				}
			}
		}
	}
	online(t, w.Gateway)
	online(t, w.lan)
}

// serveDHCP answers twice, to everyone and to the client, and tells who asked.
func serveDHCP(t testing.TB, ns *lab.Namespace) <-chan netip.AddrPort {
	t.Helper()
	conn := listenBound(t, ns, lab.DeviceCustomer, 67)
	seen := make(chan netip.AddrPort, 16)
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			seen <- netip.MustParseAddrPort(from.String())
			_, _ = conn.WriteTo(buf[:n], &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
	return seen
}

// askDHCP sends from the client's port and counts the answers.
func askDHCP(t testing.TB, ns *lab.Namespace, device, to string) (answers int, err error) {
	t.Helper()
	conn := listenBound(t, ns, device, 68)
	defer conn.Close()
	labtest.Must(t, conn.SetDeadline(time.Now().Add(2*time.Second)))
	if _, err := conn.WriteTo([]byte("lease"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		return 0, err
	}
	for buf := make([]byte, 1500); answers < 2; answers++ {
		if _, _, err := conn.ReadFrom(buf); err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// listenBound opens a UDP socket that may send to everyone, bound to a device, if one is named.
func listenBound(t testing.TB, ns *lab.Namespace, device string, port int) (conn net.PacketConn) {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return onNew(raw, func(fd int) error {
			err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
			if device != "" {
				err = errors.Join(err, unix.BindToDevice(fd, device))
			}
			return err
		})
	}}
	labtest.Must(t, ns.Do(func() (err error) {
		conn, err = lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestHostDiscovery: mDNS and SSDP between host and LAN, and SSDP with a provider's box, are as if we were not there.
func TestHostDiscovery(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	discovery := func(p *lab.Packet) bool { return p.UDP != nil && strings.HasPrefix(string(p.UDP.Payload), "search") }
	watch(t, w.Gateway, "tapgw0", "of discovery", discovery)
	watch(t, w.Gateway, "wan2", "of discovery", discovery)
	online(t, w.Gateway)
	online(t, w.lan)
	first := w.Uplinks[0]
	for group, port := range map[string]uint16{"224.0.0.251": 5353, "239.255.255.250": 1900} {
		to := netip.AddrPortFrom(netip.MustParseAddr(group), port)
		joinGroup(t, w.Gateway, lab.DeviceLAN, to)
		joinGroup(t, w.lan, lab.DeviceHost, to)
		joinGroup(t, first.ISP, lab.DeviceCustomer, to)
		for name, one := range map[string]struct {
			ns     *lab.Namespace
			device string // "" for the route's
			answer netip.Addr
		}{
			"LAN searches":                    {w.lan, lab.DeviceHost, lab.GatewayLANAddr},
			"host searches the LAN":           {w.Gateway, lab.DeviceLAN, w.Hosts[0].Addr},
			"host searches":                   {w.Gateway, "", first.NextHop()},
			"host searches by the one uplink": {w.Gateway, first.Device, first.NextHop()},
		} {
			if from := searchGroup(t, one.ns, one.device, to); from != netip.AddrPortFrom(one.answer, port) {
				t.Errorf("%s for %s: answered by %s", name, to, from)
			}
		}
	}
}

// joinGroup answers what is sent to a group on a device.
func joinGroup(t testing.TB, ns *lab.Namespace, device string, group netip.AddrPort) {
	t.Helper()
	conn := listenBound(t, ns, "", int(group.Port()))
	labtest.Must(t, ns.Do(func() error {
		index, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return ipv4.NewPacketConn(conn).JoinGroup(index, &net.UDPAddr{IP: group.Addr().AsSlice()})
	}))
	go func() {
		for buf := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte("found by "), buf[:n]...), from)
		}
	}()
}

// searchGroup asks a group and returns who answers.
func searchGroup(t testing.TB, ns *lab.Namespace, device string, group netip.AddrPort) netip.AddrPort {
	t.Helper()
	conn := listenBound(t, ns, "", 0)
	if device != "" {
		labtest.Must(t, ns.Do(func() error {
			index, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			return ipv4.NewPacketConn(conn).SetMulticastInterface(index)
		}))
	}
	labtest.Must(t, ipv4.NewPacketConn(conn).SetMulticastLoopback(false))
	labtest.Must(t, conn.SetDeadline(time.Now().Add(patience/4)))
	_, err := conn.WriteTo([]byte("search"), net.UDPAddrFromAddrPort(group))
	labtest.Must(t, err)
	_, from, err := conn.ReadFrom(make([]byte, 1500))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(from.String())
}
