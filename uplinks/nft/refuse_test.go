package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// farAddr is a server that the TAP and the first provider lead to.
const farAddr = "192.0.2.1"

// TestSettledConnectionsAreRefused: what went untranslated into the TAP does not leave by an uplink once the daemon is
// dead, sockets inside learn of it, and new connections are masqueraded.
func TestSettledConnectionsAreRefused(t *testing.T) {
	w := newWorld(t)
	r := w.apply(w.wanted())
	before, after := w.far(w.sink), w.far(w.isp1)
	leaks := w.leaks()
	w.leadTo(sinkAddr)
	stream := w.stream(w.lan, farAddr, 80, w.listen(w.sink, 80))
	answered, silent := w.exchange(before), w.dialUDP()
	w.write(silent, "before")

	w.must(r.socket.close())
	w.leadTo(isp1Addr)
	for _, c := range []net.Conn{answered, silent} {
		w.write(c, "after")
	}
	began := time.Now()
	if err := stream.talk(); !errors.Is(err, unix.ECONNRESET) || time.Since(began) > patience/2 {
		t.Errorf("the next write of a connection: %v after %s, want a reset", err, time.Since(began))
	}
	w.exchange(after)
	w.masqueraded(w.listen(w.isp1, 80))
	expectNone(t, leaks)
}

// TestConnectionsOutliveAGap: while the daemon lives, what is to go into the TAP waits until the route is back, that of connections
// as well which conntrack has not seen begin.
func TestConnectionsOutliveAGap(t *testing.T) {
	for _, seen := range []bool{true, false} {
		t.Run(fmt.Sprintf("seen=%t", seen), func(t *testing.T) { outliveGap(t, seen) })
	}
}

func outliveGap(t *testing.T, seen bool) {
	w := newWorld(t)
	if seen {
		w.apply(w.wanted())
	}
	w.far(w.sink)
	w.far(w.isp1)
	leaks := w.leaks()
	w.leadTo(sinkAddr)
	stream := w.stream(w.lan, farAddr, 80, w.listen(w.sink, 80))
	if !seen {
		w.apply(w.wanted())
	}
	w.leadTo(isp1Addr)
	w.write(stream.near, "x")
	w.masqueraded(w.listen(w.isp1, 80))
	w.leadTo(sinkAddr)
	_, err := stream.far.Read(make([]byte, 1))
	w.must(err)
	w.must(stream.talk())
	expectNone(t, leaks)
}

// TestTranslatedConnectionsGoOn: the rules tell what they must not touch, with the daemon and without.
func TestTranslatedConnectionsGoOn(t *testing.T) {
	w := newWorld(t)
	w.portForward(otherPort)
	r := w.apply(w.wanted())
	leaks := w.leaks()
	w.far(w.sink)
	w.leadTo(sinkAddr)
	streams := map[string]stream{
		"masqueraded":  w.stream(w.lan, isp1Addr, 80, w.listen(w.isp1, 80)),
		"port forward": w.stream(w.isp1, hostOnISP1, otherPort, w.listen(w.lan, 80)),
		"own":          w.stream(w.host, isp1Addr, 81, w.listen(w.isp1, 81)),
	}
	throughTAP := w.stream(w.lan, farAddr, 80, w.listen(w.sink, 80))
	for range 3 {
		w.must(throughTAP.talk())
	}
	for _, close := range []func() error{func() error { return nil }, r.socket.close} {
		w.must(close())
		for name, s := range streams {
			if err := s.talk(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	expectNone(t, leaks)
}

// TestInvalidPacketsDoNotLeak: there is no translation for what conntrack calls invalid.
func TestInvalidPacketsDoNotLeak(t *testing.T) {
	w := newWorld(t)
	w.unsolicited(w.lan, w.isp1, isp1Addr, true)
	w.apply(w.wanted())
	w.unsolicited(w.lan, w.isp1, isp1Addr, false)
}

// unsolicited sends through the host an echo reply that nobody asked for, which conntrack calls invalid, and checks
// whether it arrives before one of the host.
func (w *world) unsolicited(from, to *lab.Namespace, addr string, want bool) {
	w.t.Helper()
	c, err := to.ListenPacket("ip4:icmp", "0.0.0.0")
	w.must(err)
	defer c.Close()
	w.must(c.SetDeadline(time.Now().Add(patience)))
	w.reply(from, addr, 1)
	_, err = w.dial(from, 0, w.gateway(from), otherPort) // refused, but by then the host has handled the reply
	if !errors.Is(err, unix.ECONNREFUSED) {
		w.t.Fatal(err)
	}
	w.reply(w.host, addr, 2)
	buf := make([]byte, 1500)
	n, _, err := c.ReadFrom(buf)
	w.must(err)
	m, err := icmp.ParseMessage(unix.IPPROTO_ICMP, buf[:n])
	w.must(err)
	if got := m.Body.(*icmp.Echo).ID == 1; got != want {
		w.t.Errorf("to %s: an invalid packet passed: %t, want %t", addr, got, want)
	}
}

func (w *world) reply(from *lab.Namespace, addr string, id int) {
	w.t.Helper()
	c, err := from.ListenPacket("ip4:icmp", "0.0.0.0")
	w.must(err)
	defer c.Close()
	b, err := (&icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &icmp.Echo{ID: id}}).Marshal(nil)
	w.must(err)
	_, err = c.WriteTo(b, &net.IPAddr{IP: net.ParseIP(addr)})
	w.must(err)
}

// gateway is the host's address on the cable to ns.
func (w *world) gateway(ns *lab.Namespace) string {
	w.t.Helper()
	routes, err := ns.Handle().RouteGet(net.ParseIP(farAddr))
	w.must(err)
	return routes[0].Gw.String()
}

// far gives ns the address of the server far away, which answers datagrams.
func (w *world) far(ns *lab.Namespace) net.PacketConn {
	w.t.Helper()
	lo, err := ns.Handle().LinkByName("lo")
	w.must(err)
	w.must(ns.Handle().AddrAdd(lo, &netlink.Addr{IPNet: farNet()}))
	c, err := ns.ListenPacket("udp4", farAddr+":9")
	w.must(err)
	w.must(c.SetDeadline(time.Now().Add(patience)))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// leadTo points the host's route to the server far away at a neighbour.
func (w *world) leadTo(gateway string) {
	w.t.Helper()
	w.must(w.host.Handle().RouteReplace(&netlink.Route{Dst: farNet(), Gw: net.ParseIP(gateway)}))
}

func farNet() *net.IPNet {
	return &net.IPNet{IP: net.ParseIP(farAddr).To4(), Mask: net.CIDRMask(32, 32)}
}

// stream is an open TCP connection; near is the end that opened it.
type stream struct{ near, far net.Conn }

func (w *world) stream(ns *lab.Namespace, addr string, port int, server net.Listener) stream {
	w.t.Helper()
	near, err := w.dial(ns, 0, addr, port)
	w.must(err)
	w.t.Cleanup(func() { _ = near.Close() })
	far, err := server.Accept()
	w.must(err)
	w.t.Cleanup(func() { _ = far.Close() })
	s := stream{near, far}
	w.must(s.talk())
	return s
}

// talk sends something each way. A reset that comes instead is the error.
func (s stream) talk() error {
	deadline := time.Now().Add(patience)
	if err := errors.Join(s.near.SetDeadline(deadline), s.far.SetDeadline(deadline)); err != nil {
		return err
	}
	heard := make(chan error, 1)
	go func() {
		_, err := s.far.Read(make([]byte, 1))
		if err == nil {
			_, err = s.far.Write([]byte{1})
		}
		heard <- err
	}()
	_, err := s.near.Write([]byte{1})
	if err == nil {
		_, err = s.near.Read(make([]byte, 1))
	}
	if err != nil {
		return errors.Join(err, s.far.SetDeadline(time.Now()), <-heard)
	}
	return <-heard
}

// dialUDP opens a socket of the LAN to the server far away.
func (w *world) dialUDP() net.Conn {
	w.t.Helper()
	c, err := w.lan.Dial(context.Background(), "udp4", farAddr+":9")
	w.must(err)
	w.t.Cleanup(func() { _ = c.Close() })
	w.must(c.SetDeadline(time.Now().Add(patience)))
	return c
}

func (w *world) write(c net.Conn, payload string) {
	w.t.Helper()
	_, err := c.Write([]byte(payload))
	w.must(err)
}

// exchange opens a socket of the LAN and has the server answer it.
func (w *world) exchange(server net.PacketConn) net.Conn {
	w.t.Helper()
	c := w.dialUDP()
	w.write(c, "question")
	_, from := w.receive(server)
	_, err := server.WriteTo([]byte("answer"), net.UDPAddrFromAddrPort(from))
	w.must(err)
	_, err = c.Read(make([]byte, 16))
	w.must(err)
	return c
}

// leaks keeps what comes to the first provider with an address of the LAN.
func (w *world) leaks() *lab.Capture {
	w.t.Helper()
	c, err := w.isp1.StartCapture("eth0", func(p *lab.Packet) bool {
		return !p.Outgoing && p.IP != nil && prefix(lanAddr).Masked().Contains(p.Src.Addr())
	})
	w.must(err)
	w.t.Cleanup(func() { _, _ = c.Stop() })
	return c
}

func expectNone(t *testing.T, leaks *lab.Capture) {
	t.Helper()
	report, err := leaks.Stop()
	if err != nil || report.IPv4 == 0 || report.Lost > 0 {
		t.Fatalf("capture: %+v, %v", report, err)
	}
	for _, p := range report.Kept {
		t.Errorf("left untranslated: %s", p)
	}
}
