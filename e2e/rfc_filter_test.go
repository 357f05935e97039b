package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// filtering is the configuration of both protocols' filters.
func filtering(udp, tcp string) string {
	return fmt.Sprintf("nat: {filtering: {udp: %s, tcp: %s}}\n", udp, tcp)
}

const (
	endpointIndependent = "endpoint_independent"
	addressDependent    = "address_dependent"
	addressAndPort      = "address_and_port_dependent"
)

// stranger is a remote endpoint that an inside endpoint has not sent to.
type stranger struct {
	name string
	at   netip.AddrPort
	let  map[string]bool // by filter
}

// strangers are the neighbour of a server that was spoken to, and another server.
func strangers(f *family, port uint16) []stranger {
	return []stranger{
		{"another port", netip.AddrPortFrom(f.servers[0], port), map[string]bool{endpointIndependent: true, addressDependent: true}},
		{"another address", netip.AddrPortFrom(f.servers[1], port), map[string]bool{endpointIndependent: true}},
	}
}

// TestRFC4787_REQ8_Filtering: who reaches an inside endpoint under each filter, which a reload changes; the answers have the
// same outside endpoint, and the kernel may carry them.
func TestRFC4787_REQ8_Filtering(t *testing.T) {
	t.Parallel()
	testFilters(t, begin(t, lab.Options{}, filtering(addressAndPort, addressAndPort)+inTurn))
}

func testFilters(t *testing.T, w world) {
	for i, filter := range []string{addressAndPort, addressDependent, endpointIndependent} {
		w.use(filtering(filter, filter) + inTurn)
		for range w.Uplinks {
			conn, err := w.lan.ListenPacket(w.family.udp, w.family.any)
			labtest.Must(t, err)
			defer conn.Close()
			outside, err := lab.AskUDP(labtest.Context(t), conn, w.family.servers[0], "question")
			labtest.Must(t, err)
			for _, s := range strangers(w.family, uint16(7100+i)) {
				t.Run(fmt.Sprint(filter, " ", s.name), func(t *testing.T) { testStranger(t, w, conn, outside, s, s.let[filter]) })
			}
		}
	}
}

// testStranger has a stranger send to an outside endpoint.
func testStranger(t *testing.T, w world, inside net.PacketConn, outside netip.AddrPort, s stranger, let bool) {
	remote, err := listenUDP(w.Internet, s.at)
	labtest.Must(t, err)
	defer remote.Close()
	before := w.filtered()
	send := func(from net.PacketConn, to netip.AddrPort) {
		t.Helper()
		_, err := from.WriteTo([]byte(s.name), net.UDPAddrFromAddrPort(to))
		labtest.Must(t, err)
	}
	send(remote, outside)
	if !let {
		eventually(t, "being filtered", func() bool { return w.filtered() > before })
		return
	}
	for range 10 {
		if from := receive(t, inside); from != s.at {
			t.Errorf("from %s, want %s", from, s.at)
		}
		send(inside, s.at)
		if from := receive(t, remote); from != outside {
			t.Errorf("answered from %s, want %s", from, outside)
		}
		send(remote, outside)
	}
	receive(t, inside)
	if w.filtered() != before {
		t.Errorf("%g filtered", w.filtered()-before)
	}
}

// filtered is how many packets were dropped by a filter.
func (w world) filtered() float64 { return w.metric(`tapgw_packets_dropped_total{reason="filtered"}`) }

// receive returns where the next datagram comes from.
func receive(t testing.TB, conn net.PacketConn) netip.AddrPort {
	t.Helper()
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, from, err := conn.ReadFrom(make([]byte, 1500))
	labtest.Must(t, err)
	return from.(*net.UDPAddr).AddrPort()
}

// sharedPort is a TCP port on which a program listens and from which it connects, as peer-to-peer programs do.
const sharedPort = 5000

// reuse lets a listener and connections share a port.
func reuse(_, _ string, c syscall.RawConn) error {
	return onNew(c, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
}

// dialShared connects from the shared port of a host.
func dialShared(ctx context.Context, ns *lab.Namespace, from netip.Addr, port uint16, to netip.AddrPort) (net.Conn, error) {
	d := &net.Dialer{Control: reuse, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, port)), Timeout: patience}
	d.SetMultipathTCP(false)
	return ns.DialWith(ctx, d, "tcp", to.String())
}

// echoShared has a host answer on the shared port until the test ends.
func echoShared(t testing.TB, ns *lab.Namespace) {
	t.Helper()
	config := net.ListenConfig{Control: reuse}
	config.SetMultipathTCP(false)
	var l net.Listener
	labtest.Must(t, ns.Do(func() (err error) {
		l, err = config.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", sharedPort))
		return err
	}))
	echoAll(t, l)
}

// mapShared connects a host's shared port to the first server and returns its outside endpoint; the connection lasts until
// the test ends.
func mapShared(t testing.TB, w world, h *lab.Host) netip.AddrPort {
	t.Helper()
	addr := w.family.host(h)
	conn, err := dialShared(labtest.Context(t), h.Namespace, addr, sharedPort, netip.AddrPortFrom(w.family.servers[0], lab.PortTCPEcho))
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	labtest.Must(t, echo(conn, "mapped"))
	list, err := w.client.Sessions(t.Context(), api.Filter{Proto: "tcp"})
	labtest.Must(t, err)
	for _, s := range list {
		if s.Inside == netip.AddrPortFrom(addr, sharedPort) {
			return s.Outside
		}
	}
	t.Fatalf("no session of %s", addr)
	return netip.AddrPort{}
}

// TestRFC5382_REQ3_Filtering: who can connect to a listening inside port that is mapped, under each filter; that of UDP is
// another one.
func TestRFC5382_REQ3_Filtering(t *testing.T) {
	t.Parallel()
	testFiltersOfTCP(t, begin(t, lab.Options{}, filtering(addressAndPort, addressAndPort)+inTurn))
}

func testFiltersOfTCP(t *testing.T, w world) {
	echoShared(t, w.lan)
	outside := mapShared(t, w, w.Hosts[0])
	for i, filter := range []string{addressAndPort, addressDependent, endpointIndependent} {
		w.use(filtering(addressAndPort, filter) + inTurn)
		for _, s := range strangers(w.family, uint16(7200+i)) {
			if !s.let[filter] {
				expectFiltered(t, w, s.at, outside)
				continue
			}
			conn, err := dialShared(labtest.Context(t), w.Internet, s.at.Addr(), s.at.Port(), outside)
			if err != nil {
				t.Errorf("%s, %s: %v", filter, s.name, err)
				continue
			}
			for n := range 10 {
				labtest.Must(t, echo(conn, fmt.Sprint("message ", n)))
			}
			conn.Close()
		}
	}
}

// expectFiltered has a stranger connect to an outside endpoint, until what it sends is seen to be filtered.
func expectFiltered(t testing.TB, w world, stranger, outside netip.AddrPort) {
	t.Helper()
	before := w.filtered()
	ctx, cancel := context.WithCancel(labtest.Context(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		conn, err := dialShared(ctx, w.Internet, stranger.Addr(), stranger.Port(), outside)
		if err == nil {
			conn.Close()
		}
		ended <- err
	}()
	eventually(t, "being filtered", func() bool { return w.filtered() > before })
	cancel()
	if err := <-ended; err == nil {
		t.Errorf("%s has connected to %s", stranger, outside)
	}
}

// TestRFC5382_REQ4_UnsolicitedSYN: a SYN that the filter drops is answered with nothing for 6 s; one of the inside that
// crosses it meanwhile makes a connection, which both sides have opened.
func TestRFC5382_REQ4_UnsolicitedSYN(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	echoShared(t, w.lan)
	outside := mapShared(t, w, w.Hosts[0])
	remote := netip.AddrPortFrom(lab.ServerAddrs[1], 7300)
	answered := watch(t, w.Internet, w.Uplinks[0].ISP.Name(), "answer a SYN that nobody asked for", func(p *lab.Packet) bool {
		refused := p.TCP != nil && p.TCP.RST && p.Dst == remote || p.ICMP != nil && p.Dst.Addr() == remote.Addr()
		return !p.Outgoing && refused
	})
	opened := make(chan net.Conn, 1)
	go func() {
		conn, err := dialShared(labtest.Context(t), w.Internet, remote.Addr(), remote.Port(), outside)
		if err != nil {
			t.Error(err)
		}
		opened <- conn
	}()
	syn := func(p *lab.Packet) bool { return p.Outgoing && p.TCP != nil && p.TCP.SYN && p.Src == remote }
	first, err := answered.Await(labtest.Context(t), syn)
	labtest.Must(t, err)
	begun := time.Now()
	for time.Since(begun) < 6*time.Second { // SYNs come again after 1 and 3 s, and 7
		again, err := answered.Await(labtest.Context(t), syn)
		labtest.Must(t, err)
		if again.TCP.Seq != first.TCP.Seq {
			t.Fatal("another connection")
		}
	}
	near, err := dialShared(labtest.Context(t), w.lan, w.Hosts[0].Addr, sharedPort, remote)
	labtest.Must(t, err)
	defer near.Close()
	far := <-opened
	if far == nil {
		t.FailNow()
	}
	defer far.Close()
	labtest.Must(t, far.SetDeadline(time.Now().Add(patience)))
	for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
		_, err := c[0].Write([]byte("hello"))
		labtest.Must(t, err)
		labtest.Must(t, c[1].SetDeadline(time.Now().Add(patience)))
		if n, err := c[1].Read(make([]byte, 100)); n != 5 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}
