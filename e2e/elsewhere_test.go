package e2e

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// crossing has the second provider take what is for the gateway's address on the first uplink to the second one.
func crossing(t testing.TB, w world) {
	t.Helper()
	route(t, w.Uplinks[1].ISP, single(w.Uplinks[0].Addr()), w.Uplinks[1].Addr())
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (w world) wrongUplink() float64 {
	return w.metric(`tapgw_packets_dropped_total{reason="wrong_uplink"}`)
}

// gre makes a packet of a protocol without ports.
func (r *rawWorld) gre(src, dst netip.Addr) []byte {
	r.t.Helper()
	r.id++
	h := ip4(src, dst)
	h.Id, h.Protocol = r.id, layers.IPProtocolGRE
	return frame(r.t, gopacket.Payload(nil), h, gopacket.Payload("\x00\x00\x08\x00tunnelled"))
}

// firstFragment makes a packet the first fragment of one.
func firstFragment(b []byte) []byte {
	b[6] |= 0x20
	b[10], b[11] = 0, 0 // the kernel makes the checksum of what a raw socket sends
	return b
}

// TestMW6_WrongUplink: what is for a mapping or a session of an uplink and comes in by another is dropped and counted, and nobody
// answers it; the session goes on.
func TestMW6_WrongUplink(t *testing.T) {
	t.Parallel()
	r := rawEnds(t, begin(t, lab.Options{}, preferFirst))
	crossing(t, r.world)
	remote := netip.AddrPortFrom(rawRemote, 5300)
	outside, sent := r.udp(netip.AddrPortFrom(rawHosts[0], 4000), remote)
	stays, _ := r.udp(netip.AddrPortFrom(rawHosts[0], 4001), netip.AddrPortFrom(rawOther, 5300))
	stream := r.talk(4002, 80).connect()
	echo := r.out(r.query(rawHosts[0], rawRemote, layers.ICMPv4TypeEchoRequest, 77))
	r.out(r.gre(rawHosts[0], rawRemote))

	for _, u := range r.Uplinks {
		watch(t, r.Gateway, u.Device, "answer what came by the wrong uplink", func(p *lab.Packet) bool {
			return p.Outgoing && p.IP != nil && p.Dst.Addr() == rawRemote && (p.TCP == nil || p.TCP.RST || p.TCP.SYN)
		})
	}
	watch(t, r.lan, lab.DeviceHost, "arrived from the wrong uplink", func(p *lab.Packet) bool {
		return !p.Outgoing && p.IP != nil && p.Src.Addr() == rawRemote
	})
	for what, b := range map[string][]byte{
		"a reply":            r.datagram(remote, outside, "x"),
		"of another port":    r.datagram(netip.AddrPortFrom(rawRemote, 54), outside, "x"),
		"a SYN":              stream.segment(netip.AddrPortFrom(rawRemote, 81), stream.outside, tSYN, 1, 0, ""),
		"a segment":          stream.segment(stream.remote, stream.outside, tACK, 901, 101, "x"),
		"a reset":            stream.segment(stream.remote, stream.outside, tRST, 901, 0, ""),
		"an echo reply":      r.query(rawRemote, outside.Addr(), layers.ICMPv4TypeEchoReply, echo.ICMP.Id),
		"an error":           r.errorAbout(rawRemote, outside.Addr(), 3, 3, sent.Data[14:]),
		"GRE":                r.gre(rawRemote, outside.Addr()),
		"the first fragment": firstFragment(r.datagram(remote, outside, strings.Repeat("x", 800))),
	} {
		before := r.wrongUplink()
		sendRaw(t, r.Uplinks[1].ISP, outside.Addr(), b)
		eventually(t, what+" being counted", func() bool { return r.wrongUplink() == before+1 })
	}
	stream.expect("established")
	r.in(r.datagram(netip.AddrPortFrom(rawOther, 5300), stays, "goes on"))
	stream.say(tACK, 101, 901, "goes on")
}

// TestMW6_HostsServices: what the host itself offers at an uplink's address can be reached by another uplink, on ports of
// the pool and beyond, also from the other provider's network and when it is down, as the answers of its probes come by the other as well;
// closed ports are refused.
func TestMW6_HostsServices(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{"up": "probe: {interval: 1m}\n", "down": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{}, preferFirst+config)
			begun := time.Now()
			crossing(t, w)
			route(t, w.Internet, single(w.Uplinks[0].Addr()), backboneOf(w.Uplinks[1]))
			if name == "down" {
				w.events.state("wan1", api.StateDown, begun)
			}
			w.servesByTheOther([]uint16{2000, 700}, []uint16{3000, 800})
		})
	}
}

// servesByTheOther fails the test unless the host's services at the address of the first uplink are reached by the second.
func (w world) servesByTheOther(open, closed []uint16) {
	t := w.t
	t.Helper()
	for _, port := range open {
		serveTCP(t, w.Gateway, port)
		serveUDP(t, w.Gateway, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	w.awaitServices()
	before := w.wrongUplink()
	for _, port := range open {
		to := netip.AddrPortFrom(w.Uplinks[0].Addr(), port)
		for _, ns := range []*lab.Namespace{w.Internet, w.Uplinks[1].ISP} {
			conn, err := ns.Dial(labtest.Context(t), "tcp4", to.String())
			labtest.Must(t, err)
			defer conn.Close()
			labtest.Must(t, echo(conn, strings.Repeat("by the other way ", 1000)))
		}
		labtest.Must(t, askService(labtest.Context(t), w.Internet, to, 100))
	}
	for _, port := range closed {
		expectRefusal(t, w.Internet, "tcp4", netip.AddrPortFrom(w.Uplinks[0].Addr(), port))
	}
	_, err := w.Internet.Ping(labtest.Context(t), w.Uplinks[0].Addr())
	labtest.Must(t, err)
	if n := w.wrongUplink() - before; n != 0 {
		t.Errorf("%g packets of the host's were dropped", n)
	}
}

// identical is a world whose two providers hand out the same address, subnet and gateway, and translate again.
func identical(t testing.TB, config string) world {
	t.Helper()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	one, other := topology.Uplinks[0], topology.Uplinks[1]
	labtest.Must(t, other.Renumber(one.Link.Near.Prefix, one.Link.Far.Prefix))
	for _, u := range topology.Uplinks {
		labtest.Must(t, u.ISP.Masquerade(lab.DeviceBackbone))
	}
	g := start(t, topology.Gateway, config)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	return w
}

// TestMW4_Fault16_SameAddressOnBothUplinks: the two are used at once, with the same outside ports too, and neither a reply nor an error of
// one comes to a session of the other.
func TestMW4_Fault16_SameAddressOnBothUplinks(t *testing.T) {
	t.Parallel()
	w := identical(t, inTurn+"nat: {ports: [20000-20039]}\n")
	for _, device := range []string{"wan1", "wan2"} {
		labtest.Must(t, w.connect(w.lan, device).talk())
		labtest.Must(t, w.connect(w.Gateway, device).talk())
	}
	server := netip.AddrPortFrom(lab.ServerAddrs[0], 9000)
	serveUDP(t, w.Internet, server)
	a, b, port := samePort(t, w, server)
	labtest.Must(t, echo(a, "by the first"))
	labtest.Must(t, echo(b, "by the other"))

	r := &rawWorld{world: w, id: 100}
	for i, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		outside := netip.AddrPortFrom(backboneOf(w.Uplinks[i]), port) // what the provider makes of it
		sendRaw(t, w.Internet, outside.Addr(), r.datagram(server, outside, "a reply"))
		expectNext(t, pair[0], "a reply")
		quoted := r.datagram(outside, server, "what was sent")
		sendRaw(t, w.Internet, outside.Addr(), r.errorAbout(lab.ServerAddrs[1], outside.Addr(), 3, 3, quoted))
		labtest.Must(t, pair[0].SetReadDeadline(time.Now().Add(patience)))
		if _, err := pair[0].Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the session of the error got %v", err)
		}
		labtest.Must(t, echo(pair[1], "undisturbed"))
		labtest.Must(t, echo(pair[0], "goes on"))
	}
}

// expectNext fails the test unless a socket gets this datagram next.
func expectNext(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != want {
		t.Errorf("got %q, %v; want %q", buf[:n], err, want)
	}
}

// samePort opens UDP sockets of the LAN until two have the same outside port, one by each uplink.
func samePort(t testing.TB, w world, server netip.AddrPort) (first, second net.Conn, port uint16) {
	t.Helper()
	conns := make(map[uint16]net.Conn) // by inside port
	for range 30 {
		conn, err := w.lan.Dial(labtest.Context(t), "udp4", server.String())
		labtest.Must(t, err)
		t.Cleanup(func() { conn.Close() })
		labtest.Must(t, echo(conn, "open"))
		conns[addrPortOf(conn.LocalAddr()).Port()] = conn
	}
	list, err := w.client.Sessions(t.Context(), api.Filter{Proto: "udp"})
	labtest.Must(t, err)
	at := make(map[string]map[uint16]net.Conn) // by uplink and outside port
	for _, s := range list {
		if at[s.Uplink] == nil {
			at[s.Uplink] = make(map[uint16]net.Conn)
		}
		if c := conns[s.Inside.Port()]; c != nil {
			at[s.Uplink][s.Outside.Port()] = c
		}
	}
	for port, c := range at["wan1"] {
		if other := at["wan2"][port]; other != nil {
			return c, other, port
		}
	}
	t.Fatalf("no port is used on both uplinks: %d and %d sessions", len(at["wan1"]), len(at["wan2"]))
	return nil, nil, 0
}
