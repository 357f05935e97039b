package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Ports of services, by their relation to the outside ports that the daemon uses without configuration.
const (
	portBelow     = 500   // the pool begins at 1024
	portInside    = 15000 // in the pool
	portEphemeral = 40001 // of the host's own range, which the pool leaves out
)

// TestInbound: services of the host and kernel port forwards to the LAN work by every uplink under each reverse path filter,
// beside sessions from inside.
func TestInbound(t *testing.T) {
	t.Parallel()
	for _, filter := range []int{1, 2} {
		t.Run(fmt.Sprintf("rp_filter %d", filter), func(t *testing.T) {
			t.Parallel()
			w := begin(t, lab.Options{RPFilter: filter}, inTurn)
			dialAll(t, w.lan, 20)
			for _, u := range w.Uplinks {
				watchUplink(t, w.Gateway, u)
			}
			t.Run("service", func(t *testing.T) { testServices(t, w) })
			t.Run("service on any address", func(t *testing.T) { testServicesAnywhere(t, w) })
			t.Run("service that asks", func(t *testing.T) { testServiceThatAsks(t, w) })
			t.Run("port forward", func(t *testing.T) { testPortForwards(t, w) })
			online(t, w.lan)
			online(t, w.Gateway)
		})
	}
}

func testServices(t *testing.T, w world) {
	servers, err := lab.StartServers(w.Gateway)
	labtest.Must(t, err)
	defer servers.Close()
	ctx := labtest.Context(t)
	for _, u := range w.Uplinks {
		_, err := w.Internet.Ping(ctx, w.family.own(u))
		labtest.Must(t, err)
		_, err = w.Internet.WhoAmI(ctx, w.family.own(u)) // port 80
		labtest.Must(t, err)
		_, err = w.Internet.BulkDownload(ctx, w.family.own(u), 1, 4<<20) // a port in the pool, as the next ones
		labtest.Must(t, err)
		_, err = w.Internet.BulkUpload(ctx, w.family.own(u), 2, 4<<20)
		labtest.Must(t, err)
		askDirectly(t, w, u)
		for _, port := range []uint16{portBelow, portInside, portEphemeral} {
			service := netip.AddrPortFrom(w.family.own(u), port)
			serveUDP(t, w.Gateway, service)
			for range 10 {
				labtest.Must(t, askService(ctx, w.Internet, service, 1000))
			}
		}
	}
}

// testServicesAnywhere: a UDP server that names no address answers from the one it was asked at, new clients at once, and
// in fragments. A client that turns to the other uplink may miss an answer.
func testServicesAnywhere(t *testing.T, w world) {
	ctx := labtest.Context(t)
	for _, port := range []uint16{portBelow, portInside, portEphemeral} {
		serveUDP(t, w.Gateway, netip.AddrPortFrom(netip.MustParseAddr(w.family.anyIP), port))
		eventually(t, "an answer from where it was asked", func() bool {
			ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			return askService(ctx, w.Internet, netip.AddrPortFrom(w.family.own(w.Uplinks[0]), port), 1) == nil
		})
		client, err := w.Internet.ListenPacket(w.family.udp, netip.AddrPortFrom(w.family.servers[0], 0).String())
		labtest.Must(t, err)
		defer client.Close()
		for i := range 40 {
			service := netip.AddrPortFrom(w.family.own(w.Uplinks[i%2]), port)
			labtest.Must(t, askService(ctx, w.Internet, service, 100+i*100))
			eventually(t, "an answer by the other uplink", func() bool { return askFrom(t, client, service) == service })
		}
	}
}

// testServiceThatAsks: a UDP server that has spoken to a client by one uplink answers it by the other, once asked there.
func testServiceThatAsks(t *testing.T, w world) {
	for _, port := range []uint16{portBelow, portInside, portEphemeral} {
		service := serveUDP(t, w.Gateway, netip.AddrPortFrom(netip.MustParseAddr(w.family.anyIP), port))
		client, err := w.Internet.ListenPacket(w.family.udp, netip.AddrPortFrom(w.family.servers[0], 0).String())
		labtest.Must(t, err)
		defer client.Close()
		_, err = service.WriteTo([]byte("hello"), client.LocalAddr())
		labtest.Must(t, err)
		labtest.Must(t, client.SetReadDeadline(time.Now().Add(patience)))
		_, spoken, err := client.ReadFrom(make([]byte, 100))
		labtest.Must(t, err)
		first := netip.MustParseAddrPort(spoken.String())
		for range 10 {
			if from := askFrom(t, client, first); from != first {
				t.Errorf("asked at %s, answered from %s", first, from)
			}
		}
		other := w.family.own(w.Uplinks[0])
		if other == first.Addr() {
			other = w.family.own(w.Uplinks[1])
		}
		second := netip.AddrPortFrom(other, port)
		eventually(t, "an answer by the other uplink", func() bool { return askFrom(t, client, second) == second })
	}
}

// askFrom asks a UDP service by an existing socket and returns who answers.
func askFrom(t testing.TB, client net.PacketConn, service netip.AddrPort) netip.AddrPort {
	t.Helper()
	labtest.Must(t, client.SetReadDeadline(time.Now().Add(patience)))
	_, err := client.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(service))
	labtest.Must(t, err)
	_, from, err := client.ReadFrom(make([]byte, 100))
	labtest.Must(t, err)
	return netip.MustParseAddrPort(from.String())
}

// askDirectly asks the UDP echo server behind an uplink's address, which must see the client as it is.
func askDirectly(t *testing.T, w world, u *lab.Uplink) {
	t.Helper()
	conn, err := w.Internet.ListenPacket(w.family.udp, netip.AddrPortFrom(w.family.servers[0], 0).String())
	labtest.Must(t, err)
	defer conn.Close()
	seen, err := lab.AskUDP(labtest.Context(t), conn, w.family.own(u), "hello")
	labtest.Must(t, err)
	if seen.String() != conn.LocalAddr().String() {
		t.Errorf("the service saw %s instead of %s", seen, conn.LocalAddr())
	}
}

func testPortForwards(t *testing.T, w world) {
	servers, err := lab.StartServers(w.lan)
	labtest.Must(t, err)
	defer servers.Close()
	ctx := labtest.Context(t)
	inside := w.family.host(w.Hosts[0])
	datagrams := netip.AddrPortFrom(inside, 9000)
	serveUDP(t, w.lan, datagrams)
	f := newForwarding(t, w.Gateway, w.family)
	for _, u := range w.Uplinks {
		for _, port := range []uint16{portBelow, portInside, portEphemeral} {
			f.add(u.Device, unix.IPPROTO_UDP, port, datagrams)
			f.add(u.Device, unix.IPPROTO_TCP, port, netip.AddrPortFrom(inside, lab.PortTCPEcho))
		}
		f.add(u.Device, unix.IPPROTO_TCP, lab.PortBulk, netip.AddrPortFrom(inside, lab.PortBulk))
		f.add(u.Device, unix.IPPROTO_UDP, lab.PortUDPEcho, netip.AddrPortFrom(inside, lab.PortUDPEcho))
	}
	labtest.Must(t, f.Flush())
	for _, u := range w.Uplinks {
		own := w.family.own(u)
		_, err := w.Internet.BulkDownload(ctx, own, 1, 4<<20)
		labtest.Must(t, err)
		_, err = w.Internet.BulkUpload(ctx, own, 2, 4<<20)
		labtest.Must(t, err)
		askDirectly(t, w, u)
		for _, port := range []uint16{portBelow, portInside, portEphemeral} {
			service := netip.AddrPortFrom(own, port)
			labtest.Must(t, askService(ctx, w.Internet, service, 1000))
			labtest.Must(t, askStream(t, w.Internet, service))
		}
	}
}

// askStream connects to a TCP echo service and has it repeat something.
func askStream(t testing.TB, ns *lab.Namespace, service netip.AddrPort) error {
	conn, err := ns.Dial(labtest.Context(t), "tcp", service.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn, "hello "+service.String())
}

// forwarding is a table of port forwards as users make them, in the kernel.
type forwarding struct {
	*nftables.Conn
	chain *nftables.Chain
}

func newForwarding(t testing.TB, ns *lab.Namespace, f *family) forwarding {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	labtest.Must(t, err)
	table := c.AddTable(&nftables.Table{Name: "forwards", Family: f.table})
	return forwarding{c, c.AddChain(&nftables.Chain{Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})}
}

// add is `iifname DEVICE PROTO dport PORT dnat to TO`.
func (f forwarding) add(device string, proto byte, port uint16, to netip.AddrPort) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	equal := func(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }
	f.AddRule(&nftables.Rule{Table: f.chain.Table, Chain: f.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, equal(name),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{proto}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(bytes16(port)),
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: bytes16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.chain.Table.Family), RegAddrMin: 1, RegProtoMin: 2},
	}})
}

// TestSocketsInThePortRange: 1,000 local sockets have ports in a range that 20,000 mappings fill nearly up. No socket loses
// a packet, no mapping gets a port that a socket has, and the host's stack never answers for a port that is mapped. The
// sockets are there before the daemon, because no event tells when it has listed later ones.
func TestSocketsInThePortRange(t *testing.T) {
	t.Parallel()
	const first, last, datagrams, streams = 20000, 30999, 19000, 1000
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	services := openServices(t, topology, first, 1000)
	g := start(t, topology.Gateway, fmt.Sprintf("%snat: {max_sessions: 30000, ports: [%d-%d], limits: {sessions_per_host: off, new_per_second: off}, filtering: {udp: address_and_port_dependent}}\n", inTurn, first, last))
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	for _, u := range w.Uplinks {
		watch(t, w.Gateway, u.Device, "from the host's stack about a mapped port", func(p *lab.Packet) bool {
			return p.Outgoing && (answersForMapped(p, services) || p.IP != nil && p.Src.Addr() != u.Addr())
		})
	}
	customers := keepAsking(t, w, services)

	forAll(t, datagrams, func(i int) error {
		conn, err := w.lan.ListenPacket("udp4", fmt.Sprintf("%s:%d", w.Hosts[0].Addr, 10000+i))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrs[0], "open")
		return err
	})
	conns := dialAll(t, w.lan, streams)
	asked := customers()
	t.Logf("%d sessions, the services were asked %d times meanwhile", w.status().Sessions, asked)

	list, err := w.client.Sessions(t.Context(), api.Filter{})
	labtest.Must(t, err)
	mapped := make(map[string][]netip.AddrPort)
	for _, s := range list {
		mapped[s.Proto] = append(mapped[s.Proto], s.Outside)
		if services[s.Proto][s.Outside] {
			t.Errorf("the mapping of %s took the port of a socket, %s", s.Inside, s.Outside)
		}
	}
	if n := len(mapped["udp"]) + len(mapped["tcp"]); n < datagrams+streams {
		t.Errorf("%d sessions", n)
	}
	disturb(t, w, mapped["udp"][:500], mapped["tcp"][:500])
	forAll(t, streams, func(i int) error { return echo(conns[i], "after all") })
}

// openServices binds sockets inside the port range: a quarter UDP by each uplink, half TCP on all addresses. It returns
// their endpoints by protocol.
func openServices(t *testing.T, w *lab.Topology, first, count int) map[string]map[netip.AddrPort]bool {
	t.Helper()
	services := map[string]map[netip.AddrPort]bool{"udp": {}, "tcp": {}}
	for i := range count / 2 {
		port := uint16(first + 7*i) // spread over the range
		u := w.Uplinks[i%2]
		serveUDP(t, w.Gateway, netip.AddrPortFrom(u.Addr(), port))
		services["udp"][netip.AddrPortFrom(u.Addr(), port)] = true
		serveTCP(t, w.Gateway, port)
		for _, u := range w.Uplinks {
			services["tcp"][netip.AddrPortFrom(u.Addr(), port)] = true
		}
	}
	return services
}

// serveTCP echoes on a port of all addresses until the test ends.
func serveTCP(t testing.TB, ns *lab.Namespace, port uint16) {
	t.Helper()
	l, err := ns.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
	labtest.Must(t, err)
	echoAll(t, l)
}

// echoAll echoes what connections bring until the test ends, which closes the listener.
func echoAll(t testing.TB, l net.Listener) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// keepAsking asks the services in turn until the function it returns is called, which tells how often. Each question must
// be answered, and each service is asked at least once.
func keepAsking(t testing.TB, w world, services map[string]map[netip.AddrPort]bool) (stop func() int) {
	t.Helper()
	var running sync.WaitGroup
	done, asked := make(chan struct{}), make(chan int, 2)
	ask := func(proto string, one func(netip.AddrPort) error) {
		n := 0
		defer func() { asked <- n }()
		for round := 0; ; round++ {
			for service := range services[proto] {
				select {
				case <-done:
					if round > 0 {
						return
					}
				default:
				}
				if err := one(service); err != nil {
					t.Errorf("%s service %s: %v", proto, service, err)
					return
				}
				n++
			}
		}
	}
	running.Go(func() {
		ask("udp", func(s netip.AddrPort) error { return askService(t.Context(), w.Internet, s, 100) })
	})
	running.Go(func() { ask("tcp", func(s netip.AddrPort) error { return askStream(t, w.Internet, s) }) })
	return func() int {
		close(done)
		running.Wait()
		return <-asked + <-asked
	}
}

// answersForMapped reports whether p is a reset from, or a port unreachable about, a port that is no service's.
func answersForMapped(p *lab.Packet, services map[string]map[netip.AddrPort]bool) bool {
	switch {
	case p.TCP != nil && p.TCP.RST:
		return !services["tcp"][p.Src]
	case p.ICMP != nil && p.ICMP.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort):
		return true
	}
	return false
}

// disturb has a stranger send to mapped ports, which nobody may answer, and waits until all of it has arrived.
func disturb(t testing.TB, w world, datagrams, segments []netip.AddrPort) {
	t.Helper()
	stranger, err := w.Internet.ListenPacket("udp4", lab.ServerAddrs[1].String()+":0")
	labtest.Must(t, err)
	defer stranger.Close()
	for _, to := range datagrams {
		_, err := stranger.WriteTo([]byte("is this yours"), net.UDPAddrFromAddrPort(to))
		labtest.Must(t, err)
	}
	forAll(t, len(segments), func(i int) error {
		dialer := net.Dialer{Timeout: 50 * time.Millisecond}
		c, err := w.Internet.DialWith(t.Context(), &dialer, "tcp4", segments[i].String())
		if err == nil {
			c.Close()
			return errors.New("a stranger got a connection")
		}
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() {
			return fmt.Errorf("a stranger got an answer: %w", err)
		}
		return nil
	})
	for _, u := range w.Uplinks { // what answers may come are on their way before these
		_, err := w.Internet.Ping(labtest.Context(t), u.Addr())
		labtest.Must(t, err)
	}
}

func bytes16(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }
