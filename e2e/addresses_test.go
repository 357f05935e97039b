package e2e

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// addAddress gives an uplink's device one more address of its subnet, as a provider sells them.
func addAddress(t testing.TB, topology *lab.Topology, u *lab.Uplink, last byte) netip.Addr {
	t.Helper()
	link, err := topology.Gateway.Handle().LinkByName(u.Device)
	labtest.Must(t, err)
	ip := u.Addr().As4()
	ip[3] = last
	address := netip.AddrFrom4(ip)
	labtest.Must(t, topology.Gateway.Handle().AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	return address
}

// TestRFC6888_REQ3_PoolOfAddresses: an uplink's addresses, which need not be adjacent, are all used, and each host of the LAN
// has the same of them all the time, whatever the protocol and the destination (RFC 4787 REQ-2).
func TestRFC6888_REQ3_PoolOfAddresses(t *testing.T) {
	t.Parallel()
	const hosts = 12
	topology := labtest.Build(t, lab.Options{LANHosts: hosts, Uplinks: make([]lab.UplinkOptions, 1)})
	labtest.Servers(t, topology)
	pool := map[netip.Addr]int{topology.Uplinks[0].Addr(): 0, addAddress(t, topology, topology.Uplinks[0], 77): 0, addAddress(t, topology, topology.Uplinks[0], 200): 0}
	g := start(t, topology.Gateway, "")
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	for _, host := range topology.Hosts {
		w.lan = host.Namespace
		w.meetLAN()
		seen := make(map[netip.Addr]bool)
		for i := range 10 {
			v := visitFor(w.lan, lab.ServerAddrs[i%2], visitPatience)
			labtest.Must(t, v.err)
			seen[v.outside] = true
		}
		outside, err := w.lan.WhoAmI(labtest.Context(t), lab.ServerAddrs[0])
		labtest.Must(t, err)
		seen[outside.Addr()] = true
		if len(seen) != 1 {
			t.Errorf("%s has %v", host.Addr, seen)
		}
		pool[outside.Addr()]++
	}
	for address, n := range pool {
		if n == 0 || n == hosts || len(pool) != 3 {
			t.Errorf("%d hosts have %s", n, address)
		}
	}
}

// TestRFC4787_REQ4_ParityOnTheWire: the outside port of a UDP endpoint is odd when its own is.
func TestRFC4787_REQ4_ParityOnTheWire(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	for port := range uint16(200) {
		port += 30000
		conn, err := w.lan.ListenPacket("udp4", "0.0.0.0:"+strconv.Itoa(int(port)))
		labtest.Must(t, err)
		defer conn.Close()
		outside, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "parity")
		labtest.Must(t, err)
		if (outside.Port()^port)&1 != 0 {
			t.Errorf("%d became %s", port, outside)
		}
	}
}
