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

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// bulkBytes is the length of each transfer whose every packet the captures verify.
const bulkBytes = 16 << 20

// TestTraffic is what people do all day, from the host and from the LAN, with and without offloads (fault 65). Captures on
// every device on the way verify each packet.
func TestTraffic(t *testing.T) {
	for name, offloads := range map[string]*lab.Offloads{"offloads on": nil, "offloads off": {}} {
		t.Run(name, func(t *testing.T) {
			w := begin(t, lab.Options{Offloads: offloads}, inTurn)
			watchAll(t, w)
			for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
				t.Run(name, func(t *testing.T) { testTraffic(t, w, ns) })
			}
		})
	}
}

// watchAll verifies each packet on every device on the way.
func watchAll(t testing.TB, w world) {
	t.Helper()
	watch(t, w.Gateway, lab.DeviceLAN, "", nil)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
		watch(t, w.Internet, u.ISP.Name(), "", nil)
	}
}

// watchUplink fails the test if something leaves by an uplink with a source other than the uplink's own, or is bad.
func watchUplink(t testing.TB, gateway *lab.Namespace, u *lab.Uplink) *lab.Capture {
	t.Helper()
	return watch(t, gateway, u.Device, "with a foreign source", hasForeignSource(u))
}

// hasForeignSource tells what leaves by an uplink from an address that is not the gateway's there.
func hasForeignSource(u *lab.Uplink) func(*lab.Packet) bool {
	own, ownV6 := u.Addr(), u.AddrV6()
	return func(p *lab.Packet) bool {
		src := p.Src.Addr()
		onLink := src.IsLinkLocalUnicast() || src.IsUnspecified()
		return p.Outgoing && (p.IP != nil && src != own || p.V6 != nil && src != ownV6 && !onLink)
	}
}

// watch records on a device until the test ends, and fails the test if a packet was bad or one passed that must not.
func watch(t testing.TB, ns *lab.Namespace, device, what string, forbidden func(*lab.Packet) bool) *lab.Capture {
	t.Helper()
	c, err := ns.StartCapture(device, forbidden)
	labtest.Must(t, err)
	t.Cleanup(func() {
		report, err := c.Stop()
		labtest.Must(t, err)
		if report.Packets == 0 || report.Lost > 0 {
			t.Errorf("%s:%s: %d packets seen, %d missed", ns.Name(), device, report.Packets, report.Lost)
		}
		for _, p := range report.BadOnes {
			t.Errorf("%s:%s: bad packet: %s", ns.Name(), device, p)
		}
		for _, p := range report.Kept[:min(len(report.Kept), 5)] {
			t.Errorf("%s:%s: %d packets %s, such as %s", ns.Name(), device, len(report.Kept), what, p)
		}
	})
	return c
}

func testTraffic(t *testing.T, w world, ns *lab.Namespace) {
	t.Run("bulk", func(t *testing.T) { testBulk(t, w, ns) })
	t.Run("udp", func(t *testing.T) { testUDP(t, w, ns) })
	t.Run("ping", func(t *testing.T) {
		for range 2 * len(w.Uplinks) {
			_, err := ns.Ping(labtest.Context(t), w.family.servers[0])
			labtest.Must(t, err)
		}
	})
	t.Run("port unreachable", func(t *testing.T) { testRefused(t, w, ns) })
	t.Run("traceroute", func(t *testing.T) { testTraceroute(t, w, ns) })
}

// testBulk sends bytes both ways, one direction after the other and both at once.
func testBulk(t *testing.T, w world, ns *lab.Namespace) {
	servers := w.family.servers
	ctx := labtest.Context(t)
	down := func(seed uint64) error {
		_, err := ns.BulkDownload(ctx, servers[0], seed, bulkBytes)
		return err
	}
	up := func(seed uint64) error {
		_, err := ns.BulkUpload(ctx, servers[1], seed, bulkBytes)
		return err
	}
	labtest.Must(t, down(1))
	labtest.Must(t, up(2))
	downloaded := make(chan error, 1)
	go func() { downloaded <- down(3) }()
	labtest.Must(t, errors.Join(up(4), <-downloaded))
}

// testUDP asks from many sockets: each keeps one outside endpoint for all remotes (RFC 4787 REQ-1), and together they use
// every uplink.
func testUDP(t *testing.T, w world, ns *lab.Namespace) {
	used := make(map[netip.Addr]bool)
	for range 4 * len(w.Uplinks) {
		conn, err := ns.ListenPacket(w.family.udp, w.family.any)
		labtest.Must(t, err)
		defer conn.Close()
		var first netip.AddrPort
		for i := range 6 {
			outside, err := lab.AskUDP(labtest.Context(t), conn, w.family.servers[i%2], fmt.Sprint("question ", i))
			labtest.Must(t, err)
			if i == 0 {
				first = outside
			}
			if outside != first {
				t.Errorf("the endpoint %s is %s for another remote", first, outside)
			}
		}
		used[first.Addr()] = true
	}
	expectAllUplinks(t, w, used)
}

// expectAllUplinks fails the test unless the outside addresses are those of the uplinks.
func expectAllUplinks(t testing.TB, w world, used map[netip.Addr]bool) {
	t.Helper()
	for _, u := range w.Uplinks {
		if !used[w.family.own(u)] {
			t.Errorf("%s was never used", u.Device)
		}
	}
	if len(used) != len(w.Uplinks) {
		t.Errorf("outside addresses %v", used)
	}
}

// testRefused: a closed port of the server is an error of the socket inside.
func testRefused(t *testing.T, w world, ns *lab.Namespace) {
	for range 2 * len(w.Uplinks) {
		conn, err := ns.Dial(labtest.Context(t), w.family.udp, netip.AddrPortFrom(w.family.servers[0], 9).String())
		labtest.Must(t, err)
		defer conn.Close()
		labtest.Must(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write([]byte("is anybody there"))
		labtest.Must(t, err)
		if _, err = conn.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the socket got %v", err)
		}
	}
}

// testTraceroute sends packets with rising TTL and wants an error from each router on the way, quoting what was sent: a
// gateway that decremented the TTL twice would skip a hop, one that did not would repeat one.
func testTraceroute(t *testing.T, w world, ns *lab.Namespace) {
	f := w.family
	var want []func(from netip.Addr) bool
	if ns != w.Gateway {
		want = append(want, func(a netip.Addr) bool { return a == f.lan })
	}
	want = append(want, func(a netip.Addr) bool {
		return a == f.provider(w.Uplinks[0]) || a == f.provider(w.Uplinks[1])
	}, func(a netip.Addr) bool { return a == f.servers[0] })
	for i, from := range want {
		for range len(w.Uplinks) {
			got, err := f.traceUDP(labtest.Context(t), ns, i+1)
			if err != nil || !from(got) {
				t.Errorf("UDP with a TTL of %d was answered by %s (%v)", i+1, got, err)
			}
		}
	}
}

// traceUDP sends a datagram with a TTL and returns who sent an ICMP error about it.
func (f *family) traceUDP(ctx context.Context, ns *lab.Namespace, ttl int) (netip.Addr, error) {
	errs, err := ns.ListenPacket(f.icmp, f.anyIP)
	if err != nil {
		return netip.Addr{}, err
	}
	defer errs.Close()
	conn, err := ns.ListenPacket(f.udp, f.any)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	if err := f.setHops(conn, ttl); err != nil {
		return netip.Addr{}, err
	}
	const closed = 33434
	if _, err := conn.WriteTo([]byte("traceroute"), &net.UDPAddr{IP: f.servers[0].AsSlice(), Port: closed}); err != nil {
		return netip.Addr{}, err
	}
	deadline, _ := ctx.Deadline()
	if err := errs.SetDeadline(deadline); err != nil {
		return netip.Addr{}, err
	}
	return f.awaitError(errs, uint16(conn.LocalAddr().(*net.UDPAddr).Port), closed)
}

// awaitError reads until an ICMP error quotes a UDP datagram with these ports.
func (f *family) awaitError(conn net.PacketConn, src, dst uint16) (netip.Addr, error) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return netip.Addr{}, err
		}
		m, err := icmp.ParseMessage(f.proto, buf[:n])
		if err != nil {
			continue
		}
		var quoted []byte
		switch body := m.Body.(type) {
		case *icmp.DstUnreach:
			quoted = body.Data
		case *icmp.TimeExceeded:
			quoted = body.Data
		}
		header := f.headerOf(quoted)
		if header == 0 || len(quoted) < header+4 {
			continue
		}
		if ports := quoted[header:]; be16(ports) == src && be16(ports[2:]) == dst {
			return netip.MustParseAddr(from.String()), nil
		}
	}
}

// headerOf is the length of the header of a quoted packet, 0 for none.
func (f *family) headerOf(quoted []byte) int {
	if f == overIPv6 {
		if _, err := ipv6.ParseHeader(quoted); err == nil {
			return ipv6.HeaderLen
		}
		return 0
	}
	if h, err := icmp.ParseIPv4Header(quoted); err == nil {
		return h.Len
	}
	return 0
}

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
