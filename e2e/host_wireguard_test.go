package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/lab/labwg"
)

var lanPrefix = netip.PrefixFrom(lab.GatewayLANAddr, 24).Masked()

// vpn is how a VPN client of the host takes everything: what leads into the tunnel, and what leads its own packets past it.
type vpn struct {
	config   []string // of the tunnel
	connect  func(testing.TB, *lab.Topology, *tunnel)
	balanced bool // encapsulated packets come to us
}

var vpns = map[string]vpn{
	// As NetworkManager does, and OpenVPN with other prefixes.
	"pinned": {connect: func(t testing.TB, topology *lab.Topology, w *tunnel) {
		u := topology.Uplinks[0]
		index, err := topology.Gateway.Index(u.Device)
		labtest.Must(t, err)
		server := netip.PrefixFrom(lab.ServerAddrs[0], 32)
		labtest.Must(t, topology.Gateway.Handle().RouteReplace(&netlink.Route{LinkIndex: index, Dst: ipNet(server), Gw: u.NextHop().AsSlice()}))
		w.route(t, netip.MustParsePrefix("0.0.0.0/0"), 50, unix.RT_TABLE_MAIN)
	}},
	"wg-quick": {balanced: true, config: []string{"fwmark=51820"}, connect: func(t testing.TB, topology *lab.Topology, w *tunnel) {
		w.route(t, netip.MustParsePrefix("0.0.0.0/0"), 0, markWG)
		h := topology.Gateway.Handle()
		rule := netlink.NewRule()
		rule.Family, rule.Invert, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, true, markWG, markWG, 32765
		labtest.Must(t, h.RuleAdd(rule))
		rule = netlink.NewRule()
		rule.Family, rule.Table, rule.SuppressPrefixlen, rule.Priority = unix.AF_INET, unix.RT_TABLE_MAIN, 0, 32764
		labtest.Must(t, h.RuleAdd(rule))
	}},
}

// TestHostWireGuard: the host's own tunnel carries host and LAN, whether it was there before us or comes later, and lives on by
// the other uplink when the one it used dies.
func TestHostWireGuard(t *testing.T) {
	t.Parallel()
	for name, v := range vpns {
		for order, first := range map[string]bool{" first": true, " later": false} {
			t.Run(name+order, func(t *testing.T) {
				t.Parallel()
				testHostWireGuard(t, v, first)
			})
		}
	}
}

func testHostWireGuard(t *testing.T, v vpn, first bool) {
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	key, peer := newKey(t), newKey(t)
	server := openInternetServer(t, topology.Internet, peer, key.PublicKey(), "10.99.0.2/32", lanPrefix.String())
	server.route(t, lanPrefix, 0, unix.RT_TABLE_MAIN)
	connect := func() {
		v.connect(t, topology, openClient(t, topology.Gateway, key, peer.PublicKey(), v.config...))
	}
	if first {
		connect()
	}
	g := start(t, topology.Gateway, inTurn)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	if !first {
		w.meetLAN()
		expectAllUplinks(t, w, visitAll(t, w, w.lan))
		connect()
	}
	for i, u := range w.Uplinks {
		if v.balanced || i == 0 { // else nothing but probes leaves by it, now and then
			watchUplink(t, w.Gateway, u)
		}
	}
	labtest.Must(t, w.Gateway.Sysctl("net/ipv4/ip_forward", "1"))
	w.expectInTunnel(w.Gateway, clientWG.Addr())
	w.expectInTunnel(w.lan, w.Hosts[0].Addr)
	testInTunnel(t, w.Gateway)
	testInTunnel(t, w.lan)
	if v.balanced {
		w.expectRoaming(server, w.Gateway, serverWG.Addr())
		w.expectAnswersBeside(labwg.Device)
	}
}

// expectInTunnel waits until the Internet sees connections from ns as the tunnel brings them, and no others any more.
func (w world) expectInTunnel(ns *lab.Namespace, as netip.Addr) {
	w.t.Helper()
	eventually(w.t, ns.Name()+" in the tunnel", func() bool {
		v := visitFor(ns, lab.ServerAddrs[1], time.Second)
		return v.err == nil && v.outside == as
	})
	for range 5 {
		if v := visitFor(ns, lab.ServerAddrs[1], patience); v.err != nil || v.outside != as {
			w.t.Errorf("%s is seen as %s (%v), not %s", ns.Name(), v.outside, v.err, as)
		}
	}
}

// testInTunnel sends bytes both ways to the other end.
func testInTunnel(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	ctx := labtest.Context(t)
	_, err := ns.BulkDownload(ctx, serverWG.Addr(), 1, 4<<20)
	labtest.Must(t, err)
	_, err = ns.BulkUpload(ctx, serverWG.Addr(), 2, 4<<20)
	labtest.Must(t, err)
	_, err = ns.Ping(ctx, serverWG.Addr())
	labtest.Must(t, err)
}

// expectAnswersBeside fails the test unless services of the host answer by the uplink where they are asked, and not by a tunnel that takes
// all that the host itself begins.
func (w world) expectAnswersBeside(tunnel string) {
	w.t.Helper()
	own := make(map[netip.Addr]bool)
	serveTCP(w.t, w.Gateway, portAllowed)
	for _, u := range w.Uplinks {
		own[u.Addr()] = true
		serveUDP(w.t, w.Gateway, netip.AddrPortFrom(u.Addr(), portAllowed))
	}
	watch(w.t, w.Gateway, tunnel, "from an uplink's address", func(p *lab.Packet) bool { return own[p.Src.Addr()] })
	expectServed(w.t, w, portAllowed)
	online(w.t, w.Gateway)
}

// expectRoaming lets the uplink die that a tunnel uses, and a connection inside goes on.
func (w world) expectRoaming(server *tunnel, ns *lab.Namespace, inside netip.Addr) {
	w.t.Helper()
	inner, err := ns.Dial(labtest.Context(w.t), "tcp4", netip.AddrPortFrom(inside, lab.PortTCPEcho).String())
	labtest.Must(w.t, err)
	w.t.Cleanup(func() { inner.Close() })
	connection := talker{Conn: inner}
	labtest.Must(w.t, connection.talk())
	used := w.behind(server.endpoint(w.t).Addr())
	labtest.Must(w.t, used.SetFaults(lab.Blackhole))
	eventually(w.t, "the tunnel by the other uplink", func() bool {
		now := server.endpoint(w.t).Addr()
		return now != used.Addr() && w.behind(now) != nil
	})
	labtest.Must(w.t, connection.talk())
	labtest.Must(w.t, used.SetFaults())
}

// TestHostWireGuardOfTheLAN: a tunnel that begins behind us.
func TestHostWireGuardOfTheLAN(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	key, peer := newKey(t), newKey(t)
	server := openInternetServer(t, w.Internet, peer, key.PublicKey(), "10.99.0.2/32")
	openClient(t, w.lan, key, peer.PublicKey())
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	testInTunnel(t, w.lan)
	w.expectRoaming(server, w.lan, serverWG.Addr())
	testInTunnel(t, w.lan)
}
