package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"tapgw/api"
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
	const hosts = 40 // enough that three addresses, which a keyed hash picks for each, are all somebody's but 1 time in 4 million
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
		for i := range 4 {
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

// staticWorld is a gateway whose first LAN host has an outside address of its own on the first uplink.
func staticWorld(t testing.TB) (w world, outside netip.Addr) {
	t.Helper()
	topology := labtest.Build(t, lab.Options{LANHosts: 2})
	labtest.Servers(t, topology)
	outside = addAddress(t, topology, topology.Uplinks[0], 77)
	g := start(t, topology.Gateway, fmt.Sprintf("uplinks: [{interface: wan1, static: [%s=%s]}, {interface: wan2}]\n%s",
		topology.Hosts[0].Addr, outside, inTurn))
	g.awaitUp(topology)
	w = world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	return w, outside
}

// TestStaticFromInside: what a host with an outside address of its own sends by that uplink has this address and its own ports;
// other hosts and the gateway never have it, and by the other uplink it is one of many.
func TestStaticFromInside(t *testing.T) {
	t.Parallel()
	w, outside := staticWorld(t)
	seen := make(map[netip.Addr]int)
	for i := range 10 {
		e, err := openEndpoint(t, w.lan, visitPatience)
		labtest.Must(t, err)
		if seen[e.outside.Addr()]++; e.outside.Addr() == outside && e.outside.Port() != addrPortOf(e.LocalAddr()).Port() {
			t.Errorf("%s left as %s", e.LocalAddr(), e.outside)
		}
		for _, ns := range []*lab.Namespace{w.Hosts[1].Namespace, w.Gateway} {
			if v := visitFor(ns, lab.ServerAddrs[i%2], visitPatience); v.err != nil || v.outside == outside {
				t.Errorf("%s left as %s: %v", ns.Name(), v.outside, v.err)
			}
		}
	}
	if seen[outside] < 3 || seen[w.Uplinks[1].Addr()] < 3 || len(seen) != 2 {
		t.Errorf("the host left as %v", seen)
	}
	stream := w.connect(w.lan, "wan1")
	if s, ok := w.session("tcp", portOf(stream)); !ok || s.Outside != netip.AddrPortFrom(outside, portOf(stream)) {
		t.Errorf("a connection left as %s", s.Outside)
	}
}

// TestStaticFromOutside: all that is sent to an inside host's own address reaches that host, whatever the protocol, port and
// remote, and its answers leave by the uplink that the questions came in by; the gateway itself never answers for it.
func TestStaticFromOutside(t *testing.T) {
	t.Parallel()
	w, outside := staticWorld(t)
	servers, err := lab.StartServers(w.lan)
	labtest.Must(t, err)
	defer servers.Close()
	ctx := labtest.Context(t)
	serveTCP(t, w.Gateway, 7777) // not to be met
	serveTCP(t, w.lan, 22)

	for range 3 {
		from, err := w.Internet.WhoAmI(ctx, outside)
		labtest.Must(t, err)
		if !from.Addr().IsValid() || from.Addr() == outside {
			t.Errorf("the host was asked by %s", from)
		}
		_, err = w.Internet.Ping(ctx, outside)
		labtest.Must(t, err)
		conn, err := w.Internet.ListenPacket("udp4", "0.0.0.0:0")
		labtest.Must(t, err)
		defer conn.Close()
		for _, size := range []int{5, 4000} { // whole, and in fragments both ways
			_, err = lab.AskUDP(ctx, conn, outside, strings.Repeat("x", size))
			labtest.Must(t, err)
		}
	}
	_, err = w.Internet.Download(ctx, outside, bulkBytes)
	labtest.Must(t, err)
	conn, err := w.Internet.Dial(ctx, "tcp4", netip.AddrPortFrom(outside, 22).String())
	labtest.Must(t, err)
	defer conn.Close()
	labtest.Must(t, echo(conn, "the host's own port 22"))
	expectRefusal(t, w.Internet, "tcp4", netip.AddrPortFrom(outside, 7777)) // by the host of the LAN
	for _, s := range w.sessionsTo(t, outside) {
		if s.Uplink != "wan1" || s.Outside.Port() != s.Inside.Port() {
			t.Errorf("%+v", s)
		}
	}
	expectRefusal(t, w.Internet, "tcp4", netip.AddrPortFrom(w.Uplinks[0].Addr(), 22)) // others are as they were
	_, err = w.Internet.Ping(ctx, w.Uplinks[0].Addr())
	labtest.Must(t, err)
}

// sessionsTo lists the sessions of an outside address, of which there must be some.
func (w world) sessionsTo(t testing.TB, outside netip.Addr) (found []api.Session) {
	t.Helper()
	list, err := w.client.Sessions(t.Context(), api.Filter{})
	labtest.Must(t, err)
	for _, s := range list {
		if s.Outside.Addr() == outside {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		t.Errorf("no session of %s", outside)
	}
	return found
}

func addrPortOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// TestRFC6888_REQ6_ExemptDestinations: hosts of the LAN keep their address towards a destination that knows the way back to them,
// both ways and always by the same uplink; towards others, and for the gateway itself, all is as ever.
func TestRFC6888_REQ6_ExemptDestinations(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	u := topology.Uplinks[0]
	route(t, u.ISP, lanNet, u.Addr())
	route(t, topology.Internet, lanNet, backboneOf(u))
	g := start(t, topology.Gateway, fmt.Sprintf("%snat: {exempt: [%s]}\n", inTurn, lab.ServerAddrs[1]))
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	ctx := labtest.Context(t)
	for range 5 {
		v := visitFor(w.lan, lab.ServerAddrs[1], visitPatience)
		labtest.Must(t, v.err)
		from, err := w.lan.WhoAmI(ctx, lab.ServerAddrs[1])
		labtest.Must(t, err)
		if v.outside != topology.Hosts[0].Addr || from.Addr() != v.outside {
			t.Errorf("the host was seen as %s and %s", v.outside, from)
		}
		if _, err := w.lan.Ping(ctx, lab.ServerAddrs[1]); err != nil {
			t.Error(err)
		}
		for _, c := range []struct {
			ns *lab.Namespace
			to netip.Addr
		}{{w.lan, lab.ServerAddrs[0]}, {w.Gateway, lab.ServerAddrs[1]}} {
			if v := visitFor(c.ns, c.to, visitPatience); v.err != nil || !v.outside.Is4() || v.outside.As4()[0] != 100 {
				t.Errorf("%s was seen by %s as %s: %v", c.ns.Name(), c.to, v.outside, v.err)
			}
		}
	}
	_, err := w.lan.Download(ctx, lab.ServerAddrs[1], bulkBytes)
	labtest.Must(t, err)
}

// lanNet is the LAN's.
var lanNet = netip.MustParsePrefix("10.0.0.0/24")

// backboneOf is the provider's address on its link to the Internet.
func backboneOf(u *lab.Uplink) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(4*u.Number + 1)})
}

// route adds a route of a namespace.
func route(t testing.TB, ns *lab.Namespace, to netip.Prefix, via netip.Addr) {
	t.Helper()
	labtest.Must(t, ns.Handle().RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}, Gw: via.AsSlice(),
	}))
}

// TestRFC6888_REQ1_RulesOfEachTransport: where hosts share a pool of addresses and have limits, UDP, TCP and ICMP do what their
// own RFCs ask.
func TestRFC6888_REQ1_RulesOfEachTransport(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{LANHosts: 2, Uplinks: make([]lab.UplinkOptions, 1)})
	labtest.Servers(t, topology)
	addAddress(t, topology, topology.Uplinks[0], 77)
	g := start(t, topology.Gateway, "nat: {limits: {sessions_per_host: 100, ports_per_host: 50}}\n")
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	for _, host := range w.Hosts {
		for _, e := range endpointsOf(t, host, 41000) {
			expectOneOutside(t, e, remotes)
		}
	}
	w.expectOpen(t)
	r := rawEnds(t, w)
	c := r.talk(4000, 80).connect()
	c.dropped("a SYN of another", c.segment(netip.AddrPortFrom(rawOther, 80), c.outside, tSYN, 1, 0, ""))
	sent := c.say(tACK, 101, 901, "question")
	c.in(c.errorAbout(rawOther, c.outside.Addr(), layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeHost, sent.Data[14:]))
	c.hear(tACK, 901, 109, "answer")
	c.expect("established")
	first := r.out(r.query(rawHosts[0], rawRemote, layers.ICMPv4TypeEchoRequest, 7))
	second := r.out(r.query(rawHosts[0], rawOther, layers.ICMPv4TypeEchoRequest, 7))
	if first.Src.Addr() != c.outside.Addr() || first.Src.Addr() != second.Src.Addr() || first.ICMP.Id != second.ICMP.Id {
		t.Errorf("queries of one identifier left as %s and %s", first, second)
	}
}
