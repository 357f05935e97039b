package e2e

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Protocols without ports, for raw sockets; the last is one for experiments (RFC 3692).
const (
	protoGRE     = unix.IPPROTO_GRE
	protoESP     = unix.IPPROTO_ESP
	protoUnknown = 253
)

var portless = []int{protoGRE, protoESP, unix.IPPROTO_AH, unix.IPPROTO_SCTP, protoUnknown}

// openPortless opens a socket for a protocol without ports, a raw one but for UDP-Lite, whose checksums the kernel makes and
// checks. It is closed with the test.
func openPortless(t testing.TB, ns *lab.Namespace, proto int, local netip.Addr) (conn net.PacketConn) {
	t.Helper()
	var err error
	if proto != unix.IPPROTO_UDPLITE {
		conn, err = ns.ListenPacket(fmt.Sprintf("%s:%d", familyOf(local).ip, proto), local.String())
	} else {
		conn, err = listenUDPLite(ns, local)
	}
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

const udpLitePort = 7077

func listenUDPLite(ns *lab.Namespace, local netip.Addr) (conn net.PacketConn, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDPLITE)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), "udp-lite")
		defer file.Close()
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: udpLitePort, Addr: local.As4()}); err != nil {
			return err
		}
		conn, err = net.FilePacketConn(file)
		return err
	})
	return conn, err
}

// servePortless answers each packet with the address that it came from and what was in it, until the test ends.
func servePortless(t testing.TB, ns *lab.Namespace, proto int, local netip.Addr) {
	t.Helper()
	answerAll(t, openPortless(t, ns, proto, local), func(from net.Addr, b []byte) []byte {
		return fmt.Appendf(nil, "%s %s", sourceOf(from), b)
	})
}

func sourceOf(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr().Unmap()
	}
	addr, _ := netip.AddrFromSlice(a.(*net.IPAddr).IP)
	return addr.Unmap()
}

// tell sends one packet.
func tell(t testing.TB, conn net.PacketConn, to netip.Addr, payload string) {
	t.Helper()
	var at net.Addr = &net.IPAddr{IP: to.AsSlice()}
	if _, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		at = net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, udpLitePort))
	}
	_, err := conn.WriteTo([]byte(payload), at)
	labtest.Must(t, err)
}

// ask sends one packet to a server and returns as who that saw it.
func ask(t testing.TB, conn net.PacketConn, server netip.Addr, payload string) netip.Addr {
	t.Helper()
	tell(t, conn, server, payload)
	answer := hear(t, conn, server)
	seen, text, _ := strings.Cut(answer, " ")
	if text != payload {
		t.Fatalf("%d bytes came back as %d\n%x\n%x", len(payload), len(text), payload, text)
	}
	return netip.MustParseAddr(seen)
}

// hear waits for a packet from an address.
func hear(t testing.TB, conn net.PacketConn, from netip.Addr) string {
	t.Helper()
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	for buf := make([]byte, 1<<16); ; {
		n, source, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatalf("nothing from %s: %v", from, err)
		}
		if sourceOf(source) == from {
			return string(buf[:n])
		}
	}
}

// sctpInit is an INIT chunk with its CRC32c (RFC 9260 §3.3.2), which does not cover addresses.
func sctpInit() string {
	b := []byte{0x13, 0x88, 0x13, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9}
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	copy(b[8:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	return string(b)
}

// TestOtherProtocols_Traffic passes both ways, whole and in pieces, from a LAN host and the host itself, and the host does not
// answer for it.
func TestOtherProtocols_Traffic(t *testing.T) {
	eachKind(t, func(t *testing.T, topology *lab.Topology) {
		var own []netip.Addr
		for _, u := range topology.Uplinks {
			own = append(own, u.Addr())
			watch(t, topology.Gateway, u.Device, "unreachable", func(p *lab.Packet) bool {
				return p.Outgoing && p.ICMP != nil && p.ICMP.TypeCode.Type() == layers.ICMPv4TypeDestinationUnreachable
			})
		}
		for _, proto := range append([]int{unix.IPPROTO_UDPLITE}, portless...) {
			servePortless(t, topology.Internet, proto, lab.ServerAddrs[0])
			for name, ns := range map[string]*lab.Namespace{"host": topology.Gateway, "lan": topology.Hosts[0].Namespace} {
				conn := openPortless(t, ns, proto, netip.IPv4Unspecified())
				for _, payload := range []string{sctpInit(), strings.Repeat("large ", 700)} {
					if seen := ask(t, conn, lab.ServerAddrs[0], payload); seen != own[0] && seen != own[1] {
						t.Errorf("%s, protocol %d: seen as %s", name, proto, seen)
					}
				}
			}
		}
	})
}

// TestOtherProtocols_OneRemote: two LAN hosts that speak with the same remote do so by an uplink each, and a third is told that
// it cannot.
func TestOtherProtocols_OneRemote(t *testing.T) {
	w := begin(t, lab.Options{LANHosts: 3}, "")
	for _, h := range w.Hosts {
		online(t, h.Namespace) // datagrams are not repeated
	}
	for _, proto := range portless {
		servePortless(t, w.Internet, proto, lab.ServerAddrs[0])
		var conns []net.PacketConn
		for _, h := range w.Hosts {
			conns = append(conns, openPortless(t, h.Namespace, proto, netip.IPv4Unspecified()))
		}
		first, second := ask(t, conns[0], lab.ServerAddrs[0], "first"), ask(t, conns[1], lab.ServerAddrs[0], "second")
		if first == second {
			t.Errorf("protocol %d: two hosts are seen as %s", proto, first)
		}
		if again := ask(t, conns[0], lab.ServerAddrs[0], "again"); again != first {
			t.Errorf("protocol %d: the first host is now seen as %s", proto, again)
		}
		errors := labtest.Capture(t, w.Hosts[2].Namespace, lab.DeviceHost)
		_, err := errors.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
			return !p.Outgoing && p.ICMP != nil && p.ICMP.TypeCode == unreachable(layers.ICMPv4CodeCommAdminProhibited) && quotedProtocol(p) == proto
		}, func() error { tell(t, conns[2], lab.ServerAddrs[0], "third"); return nil })
		labtest.Must(t, err)
	}
}

// TestFailover_OtherProtocols: what has no ports goes on by another uplink with the next packet when its own is dead.
func TestFailover_OtherProtocols(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, preferFirst)
	type tunnel struct {
		*family
		net.PacketConn
	}
	var tunnels []tunnel
	for _, f := range []*family{overIPv4, overIPv6} {
		for _, proto := range []int{protoGRE, protoESP} {
			servePortless(t, w.Internet, proto, f.servers[0])
			tunnels = append(tunnels, tunnel{f, openPortless(t, w.lan, proto, netip.MustParseAddr(f.anyIP))})
		}
	}
	expect := func(u *lab.Uplink) {
		t.Helper()
		for _, c := range tunnels {
			if seen := ask(t, c, c.servers[0], "tunnelled"); seen != c.own(u) {
				t.Errorf("%s over %s: seen as %s, not by %s", c.LocalAddr(), c.name, seen, u.Device)
			}
		}
	}
	expect(w.Uplinks[0])
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Silence(true))
	w.downIn(api.FamilyIPv4, "wan1", begun)
	w.downIn(api.FamilyIPv6, "wan1", begun)
	expect(w.Uplinks[1])
}

func unreachable(code uint8) layers.ICMPv4TypeCode {
	return layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code)
}

// quotedProtocol is that of the packet an ICMP error quotes; quotes reports whether it went from one address to another.
func quotedProtocol(p *lab.Packet) int {
	if len(p.Payload) < 20 {
		return -1
	}
	return int(p.Payload[9])
}

func quotes(p *lab.Packet, from, to netip.Addr) bool {
	return len(p.Payload) >= 20 && bytes.Equal(p.Payload[12:16], from.AsSlice()) && bytes.Equal(p.Payload[16:20], to.AsSlice())
}

// TestOtherProtocols_Unreachable: errors about such packets arrive with the addresses that the other side knows, both ways.
func TestOtherProtocols_Unreachable(t *testing.T) {
	w := begin(t, lab.Options{}, "")
	host, ctx := w.Hosts[0], labtest.Context(t)
	refused := func(p *lab.Packet, outgoing bool) bool {
		return p.Outgoing == outgoing && p.ICMP != nil && p.ICMP.TypeCode == unreachable(layers.ICMPv4CodeProtocol)
	}
	for _, proto := range []int{protoGRE, protoUnknown} {
		conn := openPortless(t, host.Namespace, proto, netip.IPv4Unspecified())
		inside := labtest.Capture(t, host.Namespace, lab.DeviceHost)
		_, err := inside.AwaitAfter(ctx, func(p *lab.Packet) bool {
			return refused(p, false) && quotedProtocol(p) == proto && quotes(p, host.Addr, lab.ServerAddrs[0])
		}, func() error { tell(t, conn, lab.ServerAddrs[0], "nobody listens, so an error comes back"); return nil })
		if err != nil {
			t.Fatalf("protocol %d: no error from outside: %v", proto, err)
		}
		server := openPortless(t, w.Internet, proto, lab.ServerAddrs[0])
		servePortless(t, w.Internet, proto, lab.ServerAddrs[0])
		outside := ask(t, conn, lab.ServerAddrs[0], "who am I?")
		labtest.Must(t, conn.Close())
		u := w.Uplinks[0]
		if outside != u.Addr() {
			u = w.Uplinks[1]
		}
		uplink := labtest.Capture(t, w.Gateway, u.Device)
		_, err = uplink.AwaitAfter(ctx, func(p *lab.Packet) bool {
			return refused(p, true) && p.Src.Addr() == outside && quotedProtocol(p) == proto && quotes(p, lab.ServerAddrs[0], outside)
		}, func() error { tell(t, server, outside, "nobody listens any more"); return nil })
		if err != nil {
			t.Fatalf("protocol %d: no error from inside: %v", proto, err)
		}
	}
}

// TestOtherProtocols_HostsOwn: what the host sends from an uplink's own address leaves by that uplink as it is, and what comes to
// it arrives, asked for or not.
func TestOtherProtocols_HostsOwn(t *testing.T) {
	eachKind(t, func(t *testing.T, topology *lab.Topology) {
		for _, proto := range append([]int{unix.IPPROTO_IGMP}, portless...) {
			servePortless(t, topology.Internet, proto, lab.ServerAddrs[0])
			stranger := openPortless(t, topology.Internet, proto, lab.ServerAddrs[1])
			for _, u := range topology.Uplinks {
				conn := openPortless(t, topology.Gateway, proto, u.Addr())
				for _, payload := range []string{"a tunnel of the host", strings.Repeat("large ", 700)} {
					if seen := ask(t, conn, lab.ServerAddrs[0], payload); seen != u.Addr() {
						t.Errorf("%s, protocol %d: seen as %s", u.Device, proto, seen)
					}
					tell(t, stranger, u.Addr(), payload)
					if got := hear(t, conn, lab.ServerAddrs[1]); got != payload {
						t.Errorf("%s, protocol %d: %d bytes became %d", u.Device, proto, len(payload), len(got))
					}
				}
			}
		}
	})
}
