package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// patience bounds every wait for something that must happen.
const patience = 10 * time.Second

// Ports of the tests.
const (
	poolPort  = 5000 // the datapath's
	otherPort = 40000
)

var pool = []PortRange{{1024, 32767}, {61000, 65535}}

// Addresses of the tests: .1 is the host, .2 the other end.
const (
	hostOnISP1 = "198.51.100.1"
	isp1Addr   = "198.51.100.2"
	isp2Addr   = "203.0.113.2"
	lanAddr    = "192.168.7.2"
	sinkAddr   = "198.18.73.2"
)

var backMAC = [6]byte{0x02, 1, 2, 3, 4, 0}

// world is a host with two uplinks, a LAN and something behind its TAP.
type world struct {
	t                           *testing.T
	host, isp1, isp2, lan, sink *lab.Namespace
	uplink1                     *lab.Link
	version                     string // of IP that sockets use
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, version: "4"}
	for name, ns := range map[string]**lab.Namespace{"host": &w.host, "isp1": &w.isp1, "isp2": &w.isp2, "lan": &w.lan, "sink": &w.sink} {
		*ns = labtest.Namespace(t, name)
	}
	w.uplink1 = w.connect("wan0", hostOnISP1, w.isp1, isp1Addr, nil)
	w.connect("wan1", "203.0.113.1", w.isp2, isp2Addr, nil)
	w.connect("lan0", "192.168.7.1", w.lan, lanAddr, nil)
	w.connect("tapgw0", "198.18.73.1", w.sink, sinkAddr, nil)
	w.must(w.host.Sysctl("net/ipv4/ip_forward", "1"))
	return w
}

// connect makes a cable from the host and a default route back to it.
func (w *world) connect(device, near string, ns *lab.Namespace, far string, mac net.HardwareAddr) *lab.Link {
	w.t.Helper()
	link, err := lab.Connect(
		lab.End{NS: w.host, Device: device, Prefix: prefix(near)},
		lab.End{NS: ns, Device: "eth0", Prefix: prefix(far), MAC: mac}, 0)
	w.must(err)
	w.route(ns, near)
	return link
}

func prefix(addr string) netip.Prefix { return netip.PrefixFrom(netip.MustParseAddr(addr), 24) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// wanted is the state of a host that forwards for a LAN.
func (w *world) wanted() Wanted {
	tap, err := w.host.Index("tapgw0")
	w.must(err)
	return Wanted{
		TAP: "tapgw0", TAPIndex: tap, Upcall: "tapgw0u", Ports: pool, LAN: true,
		Uplinks: []Uplink{w.uplink("wan0", hostOnISP1), w.uplink("wan1", "203.0.113.1")},
	}
}

func (w *world) uplink(device, addr string) Uplink {
	w.t.Helper()
	index, err := w.host.Index(device)
	w.must(err)
	return Uplink{Name: device, Index: index, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, GiveBackMAC: backMAC, Guard: true}
}

// uplinkCounts are those at which rules compare what all uplinks have, and look it up.
var uplinkCounts = map[string]int{"compared": fewKeys, "looked up": fewKeys + 1}

// crowded adds uplinks, without devices here, until there are so many.
func crowded(wanted Wanted, uplinks int) Wanted {
	for n := len(wanted.Uplinks); n < uplinks; n++ {
		wanted.Uplinks = append(wanted.Uplinks, Uplink{
			Name: fmt.Sprintf("absent%d", n), Taken: true,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:a::%d", n))},
		})
	}
	return wanted
}

// open opens the rules of the host; they are closed with the test.
func (w *world) open() *Rules {
	w.t.Helper()
	var r *Rules
	w.must(w.host.Do(func() (err error) {
		r, err = Open()
		return err
	}))
	w.t.Cleanup(func() { _ = r.socket.close() })
	return r
}

func (w *world) apply(wanted Wanted) *Rules {
	w.t.Helper()
	r := w.open()
	w.must(r.Apply(wanted))
	return r
}

// tables lists the ruleset of the host as text.
func (w *world) tables() (list []string) {
	w.t.Helper()
	c := w.conn()
	tables, err := c.ListTables()
	w.must(err)
	for _, t := range tables {
		list = append(list, fmt.Sprintf("%d %s", t.Family, t.Name))
	}
	return list
}

// conn is another program's way to the ruleset of the host.
func (w *world) conn() *nftables.Conn {
	w.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(w.host.FD()))
	w.must(err)
	return c
}

// generation is the number of the last transaction. The rest of the kernel's answer names the thread that asks.
func (w *world) generation(r *Rules) uint32 {
	w.t.Helper()
	data, err := r.socket.query(generation())
	w.must(err)
	attrs, err := nl.UnmarshalAttributes(data[4:])
	w.must(err)
	i := slices.IndexFunc(attrs, func(a nl.Attribute) bool { return a.Type == unix.NFTA_GEN_ID })
	return binary.BigEndian.Uint32(attrs[i].Data)
}

func (w *world) listen(ns *lab.Namespace, port int) net.Listener {
	w.t.Helper()
	l, err := ns.Listen("tcp"+w.version, fmt.Sprintf(":%d", port))
	w.must(err)
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (w *world) listenUDP(ns *lab.Namespace, port int) net.PacketConn {
	w.t.Helper()
	c, err := ns.ListenPacket("udp"+w.version, fmt.Sprintf(":%d", port))
	w.must(err)
	w.must(c.SetDeadline(time.Now().Add(patience)))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) dial(ns *lab.Namespace, from int, addr string, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{Port: from}, Control: reuse}
	return ns.DialWith(ctx, dialer, "tcp"+w.version, endpoint(addr, port))
}

func endpoint(addr string, port int) string { return net.JoinHostPort(addr, strconv.Itoa(port)) }

// reuse lets one source port serve several connections in a row.
func reuse(_, _ string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(failed, err)
}

// reach fails unless a connection comes about, and returns who the server saw.
func (w *world) reach(ns *lab.Namespace, addr string, port int, server net.Listener) netip.AddrPort {
	w.t.Helper()
	return w.reachFrom(ns, 0, addr, port, server)
}

// reachFrom is reach from a source port.
func (w *world) reachFrom(ns *lab.Namespace, from int, addr string, port int, server net.Listener) netip.AddrPort {
	w.t.Helper()
	c, err := w.dial(ns, from, addr, port)
	w.must(err)
	defer c.Close()
	w.must(c.(*net.TCPConn).SetLinger(0)) // leave no TIME_WAIT behind, so that the port is free again
	s, err := server.Accept()
	w.must(err)
	defer s.Close()
	return s.RemoteAddr().(*net.TCPAddr).AddrPort()
}

// syn starts a connection without waiting for it.
func (w *world) syn(ns *lab.Namespace, addr string, port int) (fd int) {
	w.t.Helper()
	a := netip.MustParseAddr(addr)
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: a.As16()})
	if a.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	w.must(ns.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	err := unix.Connect(fd, to)
	if !errors.Is(err, unix.EINPROGRESS) {
		w.t.Fatalf("connect: %v", err)
	}
	return fd
}

// unanswered fails when the connection of syn got an answer. The host has handled its SYN by then, because it has refused
// a later connection of the same peer.
func (w *world) unanswered(fd int, ns *lab.Namespace, host string) {
	w.t.Helper()
	if _, err := w.dial(ns, 0, host, otherPort+1); !errors.Is(err, unix.ECONNREFUSED) {
		w.t.Fatalf("a closed port outside the pool: got %v, want a reset", err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(poll, 0)
	w.must(err)
	if n != 0 {
		w.t.Errorf("the host's stack answered a packet of the datapath: poll events %#x", poll[0].Revents)
	}
}

// send sends one datagram.
func (w *world) send(ns *lab.Namespace, addr string, port int, payload string) {
	w.t.Helper()
	c, err := ns.Dial(context.Background(), "udp"+w.version, endpoint(addr, port))
	w.must(err)
	defer c.Close()
	_, err = c.Write([]byte(payload))
	w.must(err)
}

// receive returns the next datagram.
func (w *world) receive(c net.PacketConn) (payload string, from netip.AddrPort) {
	w.t.Helper()
	buf := make([]byte, 65536)
	n, addr, err := c.ReadFrom(buf)
	w.must(err)
	return string(buf[:n]), addr.(*net.UDPAddr).AddrPort()
}

// route points the default route of a namespace at the host.
func (w *world) route(ns *lab.Namespace, gateway string) {
	w.t.Helper()
	w.must(ns.Handle().RouteReplace(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: net.ParseIP(gateway)}))
}
