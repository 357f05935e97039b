package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestIPv6Inbound is TestInbound over IPv6.
func TestIPv6Inbound(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	t.Run("service", func(t *testing.T) { testServices(t, w) })
	t.Run("service on any address", func(t *testing.T) { testServicesAnywhere(t, w) })
	t.Run("service that asks", func(t *testing.T) { testServiceThatAsks(t, w) })
	t.Run("port forward", func(t *testing.T) { testPortForwards(t, w) })
	t.Run("service of both families", func(t *testing.T) { testDualStackService(t, w) })
}

// testDualStackService: a UDP server on a socket for both families answers each from the address that was asked.
func testDualStackService(t *testing.T, w world) {
	const port = portInside + 7
	conn, err := w.Gateway.ListenPacket("udp", fmt.Sprintf(":%d", port))
	labtest.Must(t, err)
	answerAll(t, conn, func(_ net.Addr, b []byte) []byte { return b })
	for _, f := range []*family{overIPv4, overIPv6} {
		for _, u := range w.Uplinks {
			eventually(t, "an answer from where it was asked", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), visitPatience)
				defer cancel()
				return askService(ctx, w.Internet, netip.AddrPortFrom(f.own(u), port), 100) == nil
			})
			for range 10 {
				labtest.Must(t, askService(labtest.Context(t), w.Internet, netip.AddrPortFrom(f.own(u), port), 1000))
			}
		}
	}
}

// TestIPv6Hairpin is TestRFC4787_REQ9_Hairpin, TestMW10_HairpinAcrossUplinks and TestRFC5382_REQ8_Hairpin over IPv6.
func TestIPv6Hairpin(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{LANHosts: 2}, filtering(endpointIndependent, endpointIndependent)+inTurn)
	awaitTurning(t, w)
	t.Run("one uplink", func(t *testing.T) { testHairpin(t, w, w.Uplinks[0], w.Uplinks[0]) })
	t.Run("across uplinks", func(t *testing.T) { testHairpin(t, w, w.Uplinks[0], w.Uplinks[1]) })
	t.Run("TCP", func(t *testing.T) { testHairpinOfTCP(t, w) })
}

// TestIPv6Filtering is TestRFC4787_REQ8_Filtering, and TestRFC5382_REQ3_Filtering, over IPv6.
func TestIPv6Filtering(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, filtering(addressAndPort, addressAndPort)+inTurn)
	t.Run("UDP", func(t *testing.T) { testFilters(t, w) })
	t.Run("TCP", func(t *testing.T) { testFiltersOfTCP(t, w) })
}

// TestIPv6OtherProtocols: GRE, ESP and others pass both ways, whole and in pieces, from a LAN host and the host, whose own ones stay
// as they are.
func TestIPv6OtherProtocols(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, "")
	server, anywhere := w.family.servers[0], netip.MustParseAddr(w.family.anyIP)
	payloads := []string{"whole", strings.Repeat("large ", 700)}
	for _, proto := range []int{protoGRE, protoESP, unix.IPPROTO_SCTP, protoUnknown} {
		servePortless(t, w.Internet, proto, server)
		for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
			conn := openPortless(t, ns, proto, anywhere)
			for _, payload := range payloads {
				if seen := ask(t, conn, server, payload); seen != w.Uplinks[0].AddrV6() && seen != w.Uplinks[1].AddrV6() {
					t.Errorf("%s, protocol %d: seen as %s", name, proto, seen)
				}
			}
			labtest.Must(t, conn.Close())
		}
		other, stranger := w.family.servers[1], openPortless(t, w.Internet, proto, lab.ProbeTargetsV6[0])
		servePortless(t, w.Internet, proto, other)
		for _, u := range w.Uplinks {
			conn := openPortless(t, w.Gateway, proto, u.AddrV6())
			for _, payload := range payloads {
				if seen := ask(t, conn, other, payload); seen != u.AddrV6() {
					t.Errorf("%s, protocol %d: seen as %s", u.Device, proto, seen)
				}
				tell(t, stranger, u.AddrV6(), payload)
				if got := hear(t, conn, lab.ProbeTargetsV6[0]); got != payload {
					t.Errorf("%s, protocol %d: %d bytes became %d", u.Device, proto, len(payload), len(got))
				}
			}
		}
	}
}

// TestIPv6LinksStayTheHosts: what belongs to the link of an uplink passes us by, both ways: neighbour discovery, groups, and DHCPv6.
func TestIPv6LinksStayTheHosts(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	watch(t, w.Gateway, "tapgw0", "that belong on a link", func(p *lab.Packet) bool {
		return p.Outgoing && p.UDP != nil && (p.UDP.DstPort == 5353 || p.UDP.DstPort == 547)
	})
	online(t, w.Gateway)
	for _, u := range w.Uplinks {
		t.Run(u.Device, func(t *testing.T) {
			labtest.Must(t, forgetNeighbours(u.ISP, lab.DeviceCustomer))
			_, err := w.Internet.Ping(labtest.Context(t), u.AddrV6())
			labtest.Must(t, err)
			testGroup(t, w, u)
			testDHCPv6(t, w, u)
		})
	}
}

// TestRFC4861_RouterOnTheTAP: who asks on the TAP for the address that the default route leads to is answered, as from a router.
func TestRFC4861_RouterOnTheTAP(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	router, group := netip.MustParseAddr("fe80::7467"), netip.MustParseAddr("ff02::1:ff00:7467")
	host := w.dialFrom("tcp", netip.Addr{}, lab.PortTCPEcho).LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	h := ip6(host, group)
	h.HopLimit = 255
	ask := packetV6(t, h, nil, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)},
		&layers.ICMPv6NeighborSolicitation{TargetAddress: router.AsSlice()})
	link := []byte{0x33, 0x33, 0xff, 0, 0x74, 0x67, 2, 'T', 'A', 'P', 'G', 1, 0x86, 0xdd}
	p, err := labtest.Capture(t, w.Gateway, "tapgw0").AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
		return !p.Outgoing && p.ICMPv6 != nil && p.ICMPv6.TypeCode.Type() == layers.ICMPv6TypeNeighborAdvertisement && p.Dst.Addr() == host
	}, func() error { inject(t, w.Gateway, "tapgw0", append(link, ask...)); return nil })
	labtest.Must(t, err)
	const solicitedRouter = 0xe0
	if p.Src.Addr() != router || p.V6.HopLimit != 255 || p.Segment[4] != solicitedRouter || !bytes.Equal(p.Payload[:16], router.AsSlice()) {
		t.Errorf("answered by %s: % x", p, p.Segment)
	}
}

// onLink is a UDP socket of a namespace, and the index of its device on a link.
type onLink struct {
	*ipv6.PacketConn
	index int
}

// listenOnLink opens a UDP socket on a port, which hears a group where one is given.
func listenOnLink(t testing.TB, ns *lab.Namespace, device string, port int, group net.IP) onLink {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	conn, err := ns.ListenPacket("udp6", fmt.Sprintf("[::]:%d", port))
	labtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	p := ipv6.NewPacketConn(conn)
	if group != nil {
		labtest.Must(t, p.JoinGroup(&net.Interface{Index: index}, &net.UDPAddr{IP: group}))
	}
	return onLink{p, index}
}

// says sends a datagram on the link, which must be heard there by another, and returns from whom.
func (c onLink) says(t testing.TB, payload string, to net.IP, port int, other onLink) net.IP {
	t.Helper()
	_, err := c.WriteTo([]byte(payload), &ipv6.ControlMessage{IfIndex: c.index}, &net.UDPAddr{IP: to, Port: port})
	labtest.Must(t, err)
	labtest.Must(t, other.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 1500)
	n, _, from, err := other.ReadFrom(buf)
	if err != nil || string(buf[:n]) != payload {
		t.Fatalf("%q to %s was heard as %q: %v", payload, to, buf[:n], err)
	}
	return from.(*net.UDPAddr).IP
}

// testGroup: the host and its provider hear each other in a group of the link, as of multicast DNS.
func testGroup(t *testing.T, w world, u *lab.Uplink) {
	group := net.ParseIP("ff02::fb")
	here, there := listenOnLink(t, w.Gateway, u.Device, 5353, group), listenOnLink(t, u.ISP, lab.DeviceCustomer, 5353, group)
	defer here.Close()
	for _, c := range []onLink{here, there} {
		labtest.Must(t, c.SetMulticastLoopback(false))
	}
	there.says(t, "who is there", group, 5353, here)
	if from := here.says(t, "I am", group, 5353, there); !from.IsLinkLocalUnicast() {
		t.Errorf("the host spoke as %s", from)
	}
}

// testDHCPv6: a server's answer to the client's link-local address arrives (RFC 8415 §5).
func testDHCPv6(t *testing.T, w world, u *lab.Uplink) {
	servers := net.ParseIP("ff02::1:2")
	client := listenOnLink(t, w.Gateway, u.Device, 546, nil)
	defer client.Close()
	server := listenOnLink(t, u.ISP, lab.DeviceCustomer, 547, servers)
	from := client.says(t, "solicit", servers, 547, server)
	server.says(t, "advertise", from, 546, client)
}

// forgetNeighbours has a namespace resolve whom it speaks to on a device anew.
func forgetNeighbours(ns *lab.Namespace, device string) error {
	index, err := ns.Index(device)
	if err != nil {
		return err
	}
	list, err := ns.Handle().NeighList(index, unix.AF_INET6)
	for i := range list {
		if list[i].State&unix.NUD_NOARP == 0 {
			err = errors.Join(err, ns.Handle().NeighDel(&list[i]))
		}
	}
	return err
}
