package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Destinations that answer by every uplink.
var (
	remotes = []netip.Addr{lab.ServerAddrs[0], lab.ServerAddrs[1], lab.ProbeTargets[0]}
	others  = []netip.Addr{lab.ProbeTargets[1], lab.ProbeTargets[2]}
)

// mapper is a source address and port inside; ask returns the outside endpoint that a destination sees.
type mapper struct {
	name string
	ask  func(to netip.Addr) (netip.AddrPort, error)
}

// endpointsOf are a TCP and a UDP endpoint on a port of a host, which neighbours may use too.
func endpointsOf(t testing.TB, host *lab.Host, port uint16) []mapper {
	t.Helper()
	at := netip.AddrPortFrom(host.Addr, port)
	conn, err := listenUDP(host.Namespace, at)
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	n := 0
	return []mapper{
		{fmt.Sprint("udp ", at), func(to netip.Addr) (netip.AddrPort, error) {
			n++
			return lab.AskUDP(labtest.Context(t), conn, to, fmt.Sprint("question ", n))
		}},
		{fmt.Sprint("tcp ", at), func(to netip.Addr) (netip.AddrPort, error) { return whoAmIFrom(t, host.Namespace, at, to) }},
	}
}

// whoAmIFrom asks an HTTP server by a connection from a port that may have other connections; it stays open until the test ends.
func whoAmIFrom(t testing.TB, ns *lab.Namespace, from netip.AddrPort, to netip.Addr) (outside netip.AddrPort, err error) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return onNew(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	conn, err := ns.DialWith(t.Context(), &dialer, "tcp4", netip.AddrPortFrom(to, lab.PortHTTP).String())
	if err != nil {
		return outside, err
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return outside, err
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+to.String()+"/whoami", nil)
	if err == nil {
		err = request.Write(conn)
	}
	if err != nil {
		return outside, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return outside, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close() // it has been read
	return netip.MustParseAddrPort(string(body)), err
}

// expectOneOutside asks destinations and fails the test unless all see the same outside mapper, which it returns.
func expectOneOutside(t testing.TB, e mapper, destinations []netip.Addr) (first netip.AddrPort) {
	t.Helper()
	for i, to := range destinations {
		outside, err := e.ask(to)
		labtest.Must(t, err)
		if i == 0 {
			first = outside
		}
		if outside != first {
			t.Errorf("%s is %s for %s, but %s for %s", e.name, first, destinations[0], outside, to)
		}
	}
	return first
}

// TestRFC4787_REQ1_REQ3_RFC5382_REQ1_REQ7_OneOutsideEndpoint: an inside endpoint is one outside endpoint for all destinations,
// also where a neighbour on the same source port was there first, and no two are the same.
func TestRFC4787_REQ1_REQ3_RFC5382_REQ1_REQ7_OneOutsideEndpoint(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 3}, preferFirst)
	owner := make(map[string]string)
	for port := uint16(40000); port < 40004; port++ {
		for _, host := range w.Hosts {
			for _, e := range endpointsOf(t, host, port) {
				outside := expectOneOutside(t, e, remotes)
				if outside.Addr() != w.Uplinks[0].Addr() {
					t.Fatalf("%s went by %s: the endpoints must compete for ports of one address", e.name, outside)
				}
				key := e.name[:3] + outside.String()
				if owner[key] != "" {
					t.Errorf("%s and %s are both %s", owner[key], e.name, outside)
				}
				owner[key] = e.name
			}
		}
	}
}

// TestMW1_EndpointsKeepTheirUplink: with uplinks in turn, each new endpoint may take another, but none changes it, whatever
// the destination.
func TestMW1_EndpointsKeepTheirUplink(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	used := make(map[netip.Addr]bool)
	for port := uint16(40000); port < 40008; port++ {
		for _, e := range endpointsOf(t, w.Hosts[0], port) {
			used[expectOneOutside(t, e, remotes).Addr()] = true
		}
	}
	expectAllUplinks(t, w, used)
}

// TestRFC4787_REQ11_SameBehaviourUnderLoad: at 95 % of the ports and in a flood, endpoints are mapped and filtered as before.
func TestRFC4787_REQ11_SameBehaviourUnderLoad(t *testing.T) {
	t.Parallel()
	const ports = 200
	w := begin(t, lab.Options{LANHosts: 2, Uplinks: make([]lab.UplinkOptions, 1)}, fmt.Sprintf("nat: {ports: [20000-%d]}\n", 20000+ports-1))
	early := endpointsOf(t, w.Hosts[0], 41000)
	outside := []netip.AddrPort{expectOneOutside(t, early[0], remotes), expectOneOutside(t, early[1], remotes)}
	w.expectOpen(t)

	for i := range uint16(ports*95/100 - 5) {
		conn, err := listenUDP(w.Hosts[1].Namespace, netip.AddrPortFrom(w.Hosts[1].Addr, 42000+i))
		labtest.Must(t, err)
		defer conn.Close()
		_, err = lab.AskUDP(labtest.Context(t), conn, remotes[0], "one of many")
		labtest.Must(t, err)
	}
	flooded := floodPorts(t, w)
	eventually(t, "a flood", func() bool { return flooded.Load() > 1000 })
	late := endpointsOf(t, w.Hosts[0], 41001)
	expectOneOutside(t, late[0], remotes)
	expectOneOutside(t, late[1], remotes)
	for i, e := range early {
		if again := expectOneOutside(t, e, others); again != outside[i] {
			t.Errorf("%s was %s, is %s", e.name, outside[i], again)
		}
	}
	w.expectOpen(t)
}

// floodPorts sends datagrams to ports of the first uplink's address at random until the test ends, and counts them.
func floodPorts(t testing.TB, w world) *atomic.Uint64 {
	t.Helper()
	conn, err := w.Internet.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	sent, ended := new(atomic.Uint64), make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-ended })
	go func() {
		defer close(ended)
		for pace := time.NewTicker(time.Millisecond); ; <-pace.C {
			for range 20 {
				to := net.UDPAddr{IP: w.Uplinks[0].Addr().AsSlice(), Port: 1024 + rand.IntN(64512)}
				if _, err := conn.WriteTo([]byte("flood"), &to); errors.Is(err, net.ErrClosed) {
					pace.Stop()
					return
				}
				sent.Add(1)
			}
		}
	}()
	return sent
}

// expectOpen expects that datagrams of anybody reach a new endpoint, as soon as it has asked one remote.
func (w world) expectOpen(t testing.TB) {
	t.Helper()
	inside, err := w.lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer inside.Close()
	var servers []net.PacketConn // the first is asked
	missing := make(map[string]bool)
	for _, addr := range []netip.Addr{remotes[0], remotes[0], remotes[1]} {
		conn, err := listenUDP(w.Internet, netip.AddrPortFrom(addr, 0))
		labtest.Must(t, err)
		defer conn.Close()
		servers, missing[conn.LocalAddr().String()] = append(servers, conn), true
	}
	_, err = inside.WriteTo([]byte("hello"), servers[0].LocalAddr())
	labtest.Must(t, err)
	_, outside := receiveFrom(t, servers[0])
	for _, s := range servers {
		_, err = s.WriteTo([]byte("hello"), outside)
		labtest.Must(t, err)
	}
	for len(missing) > 0 {
		labtest.Must(t, inside.SetReadDeadline(time.Now().Add(patience)))
		_, from, err := inside.ReadFrom(make([]byte, 100))
		if err != nil {
			t.Fatalf("nothing came from %v: %v", missing, err)
		}
		delete(missing, from.String())
	}
}
