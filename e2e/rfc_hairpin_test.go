package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// insideUDP is a UDP socket of a LAN host and its outside endpoint.
type insideUDP struct {
	net.PacketConn
	outside netip.AddrPort
}

// mapUDP opens a socket on a LAN host that is mapped on an uplink.
func mapUDP(t testing.TB, w world, ns *lab.Namespace, u *lab.Uplink) insideUDP {
	t.Helper()
	for range 4 * len(w.Uplinks) {
		conn, err := ns.ListenPacket(w.family.udp, w.family.any)
		labtest.Must(t, err)
		outside, err := lab.AskUDP(labtest.Context(t), conn, w.family.servers[0], "who am I")
		labtest.Must(t, err)
		if outside.Addr() == w.family.own(u) {
			t.Cleanup(func() { conn.Close() })
			return insideUDP{conn, outside}
		}
		conn.Close()
	}
	t.Fatalf("%s is never used", u.Device)
	return insideUDP{}
}

// beginTurning is a world with two LAN hosts whose packets to each other's outside endpoints turn back: the rules for that
// come a moment after the gateway has heard of the LAN.
func beginTurning(t testing.TB, config string) world {
	t.Helper()
	w := begin(t, lab.Options{LANHosts: 2}, config+inTurn)
	awaitTurning(t, w)
	return w
}

func awaitTurning(t testing.TB, w world) {
	t.Helper()
	conn := mapUDP(t, w, w.lan, w.Uplinks[0])
	buf := make([]byte, 100)
	eventually(t, "a packet turning", func() bool {
		_, err := conn.WriteTo([]byte("to myself"), net.UDPAddrFromAddrPort(conn.outside))
		labtest.Must(t, err)
		labtest.Must(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, _, err = conn.ReadFrom(buf)
		return err == nil
	})
}

// exchange sends payloads to and fro between two sockets by their outside endpoints; each must see the other's.
func exchange(t testing.TB, a, b insideUDP, payload string) {
	t.Helper()
	for range 5 {
		for _, pair := range [][2]insideUDP{{a, b}, {b, a}} {
			from, to := pair[0], pair[1]
			_, err := from.WriteTo([]byte(payload), net.UDPAddrFromAddrPort(to.outside))
			labtest.Must(t, err)
			labtest.Must(t, to.SetReadDeadline(time.Now().Add(patience)))
			buf := make([]byte, 1<<16)
			n, source, err := to.ReadFrom(buf)
			labtest.Must(t, err)
			if source.String() != from.outside.String() || string(buf[:n]) != payload {
				t.Errorf("%d bytes from %s, want %d from %s", n, source, len(payload), from.outside)
			}
		}
	}
}

// TestRFC4787_REQ9_Hairpin: LAN hosts reach each other by their outside endpoints, and see the outside endpoint of the other,
// also in fragments; nothing of it leaves by an uplink.
func TestRFC4787_REQ9_Hairpin(t *testing.T) {
	t.Parallel()
	w := beginTurning(t, "")
	testHairpin(t, w, w.Uplinks[0], w.Uplinks[0])
}

// TestMW10_HairpinAcrossUplinks: as well when the two are mapped on different uplinks.
func TestMW10_HairpinAcrossUplinks(t *testing.T) {
	t.Parallel()
	w := beginTurning(t, "")
	testHairpin(t, w, w.Uplinks[0], w.Uplinks[1])
}

func testHairpin(t *testing.T, w world, one, other *lab.Uplink) {
	watch(t, w.Gateway, lab.DeviceLAN, "", nil)
	for _, u := range w.Uplinks {
		watch(t, w.Gateway, u.Device, "to an address of ours", func(p *lab.Packet) bool {
			return p.Outgoing && (p.Dst.Addr() == w.family.own(one) || p.Dst.Addr() == w.family.own(other))
		})
	}
	a, b := mapUDP(t, w, w.Hosts[0].Namespace, one), mapUDP(t, w, w.Hosts[1].Namespace, other)
	exchange(t, a, b, "hello")
	exchange(t, b, a, strings.Repeat("in several fragments ", 300))
	self := mapUDP(t, w, w.Hosts[0].Namespace, one)
	exchange(t, a, self, "from a host to itself")
}

// TestRFC5382_REQ8_Hairpin: TCP turns too, with super-packets and unfinished checksums, where the filter lets the other in.
func TestRFC5382_REQ8_Hairpin(t *testing.T) {
	t.Parallel()
	testHairpinOfTCP(t, beginTurning(t, filtering(endpointIndependent, endpointIndependent)))
}

func testHairpinOfTCP(t *testing.T, w world) {
	watch(t, w.Gateway, lab.DeviceLAN, "", nil)
	for _, h := range w.Hosts {
		echoShared(t, h.Namespace)
	}
	for i, to := range []*lab.Host{w.Hosts[1], w.Hosts[0]} {
		outside := mapShared(t, w, to)
		for range w.Uplinks {
			conn, err := w.Hosts[i].Dial(labtest.Context(t), "tcp", outside.String())
			labtest.Must(t, err)
			for range 20 {
				labtest.Must(t, echo(conn, strings.Repeat("turned ", 5000)))
			}
			conn.Close()
		}
	}
}

// TestRFC5382_REQ8_HairpinFiltered: two hosts that connect to each other at the same time get through filters that depend on the
// address, and one that connects alone does not.
func TestRFC5382_REQ8_HairpinFiltered(t *testing.T) {
	t.Parallel()
	w := beginTurning(t, "")
	var outside []netip.AddrPort
	for _, h := range w.Hosts {
		outside = append(outside, mapShared(t, w, h))
	}
	before := w.filtered()
	ctx, cancel := context.WithCancel(labtest.Context(t))
	go func() {
		defer cancel()
		eventually(t, "being filtered", func() bool { return w.filtered() > before })
	}()
	if conn, err := w.Hosts[0].DialWith(ctx, &net.Dialer{}, "tcp4", outside[1].String()); err == nil {
		conn.Close()
		t.Error("connected")
	}
	conns, errs := make([]net.Conn, 2), make(chan error, 2)
	for i, h := range w.Hosts {
		go func() {
			var err error
			conns[i], err = dialShared(labtest.Context(t), h.Namespace, h.Addr, sharedPort, outside[1-i])
			errs <- err
		}()
	}
	labtest.Must(t, errors.Join(<-errs, <-errs))
	for i, c := range conns {
		defer c.Close()
		_, err := c.Write([]byte("hello"))
		labtest.Must(t, err)
		labtest.Must(t, conns[1-i].SetDeadline(time.Now().Add(patience)))
		if n, err := conns[1-i].Read(make([]byte, 100)); n != 5 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// TestRFC5508_REQ7_HairpinError: an ICMP error about a packet that turned turns too, and is about what was sent.
func TestRFC5508_REQ7_HairpinError(t *testing.T) {
	t.Parallel()
	w := beginTurning(t, "")
	for _, u := range w.Uplinks {
		closing := mapUDP(t, w, w.Hosts[1].Namespace, u)
		labtest.Must(t, closing.Close())
		conn, err := w.Hosts[0].Dial(labtest.Context(t), "udp4", closing.outside.String())
		labtest.Must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("is anybody there"))
		labtest.Must(t, err)
		labtest.Must(t, conn.SetDeadline(time.Now().Add(patience)))
		if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the socket got %v", err)
		}
	}
}

// TestRFC4787_REQ9_HostsOwnPorts: what a LAN host sends to an address of an uplink and is no mapping's reaches the host as if
// we were not there: its services in and beyond the pool of ports, in fragments, and what nobody listens on.
func TestRFC4787_REQ9_HostsOwnPorts(t *testing.T) {
	t.Parallel()
	w := beginTurning(t, "")
	ports, closed := []int{2000, 700, 40000}, 3000
	for i, port := range ports {
		to := netip.AddrPortFrom(w.Uplinks[i%2].Addr(), uint16(port))
		serveTCP(t, w.Gateway, uint16(port))
		serveUDP(t, w.Gateway, to) // at any address it answers from the one of the LAN
		conn, err := w.lan.Dial(labtest.Context(t), "tcp4", to.String())
		labtest.Must(t, err)
		defer conn.Close()
		labtest.Must(t, echo(conn, strings.Repeat("to the host ", 1000)))
		datagrams, err := w.lan.Dial(labtest.Context(t), "udp4", to.String())
		labtest.Must(t, err)
		defer datagrams.Close()
		labtest.Must(t, echo(datagrams, "to the host"))
		labtest.Must(t, echo(datagrams, strings.Repeat("x", 4000)))
	}
	if _, err := w.lan.Dial(labtest.Context(t), "tcp4", netip.AddrPortFrom(w.Uplinks[0].Addr(), uint16(closed)).String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port of the host: %v", err)
	}
	_, err := w.lan.Ping(labtest.Context(t), w.Uplinks[0].Addr())
	labtest.Must(t, err)
	list, err := w.client.Sessions(t.Context(), api.Filter{})
	labtest.Must(t, err)
	for _, s := range list {
		if slices.Contains(append(ports, closed), int(s.Remote.Port())) {
			t.Errorf("a session with the host: %+v", s)
		}
	}
}
