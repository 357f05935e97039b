package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// IPv6 addresses of the tests, as those of IPv4.
const (
	hostOnISP1V6 = "2001:db8:1::1"
	hostOnISP2V6 = "2001:db8:2::1"
	isp1AddrV6   = "2001:db8:1::2"
	isp2AddrV6   = "2001:db8:2::2"
	hostOnLANV6  = "fd00:7::1"
	lanAddrV6    = "fd00:7::2"
	sinkAddrV6   = "fd00:73::2"
	farAddrV6    = "2001:db8:f::1"
)

// newWorldV6 is a world whose sockets use IPv6.
func newWorldV6(t *testing.T) *world {
	w := newWorld(t)
	w.version = "6"
	w.must(w.host.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	for _, c := range []struct {
		device, near, far string
		ns                *lab.Namespace
	}{
		{"wan0", hostOnISP1V6, isp1AddrV6, w.isp1}, {"wan1", hostOnISP2V6, isp2AddrV6, w.isp2}, {"lan0", hostOnLANV6, lanAddrV6, w.lan},
		{"tapgw0", "fd00:73::1", sinkAddrV6, w.sink},
	} {
		w.addV6(w.host, c.device, c.near)
		w.addV6(c.ns, "eth0", c.far)
		w.routeV6(c.ns, c.near)
	}
	return w
}

// addV6 gives a device an address that can be used at once.
func (w *world) addV6(ns *lab.Namespace, device, addr string) {
	w.t.Helper()
	l, err := ns.Handle().LinkByName(device)
	w.must(err)
	w.must(ns.Handle().AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
}

// routeV6 points the default route of a namespace at the host.
func (w *world) routeV6(ns *lab.Namespace, gateway string) {
	w.t.Helper()
	w.must(ns.Handle().RouteReplace(&netlink.Route{Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, Gw: net.ParseIP(gateway)}))
}

// wantedV6 is wanted of both families.
func (w *world) wantedV6() Wanted {
	wanted := w.wanted()
	wanted.IPv6 = true
	for i, addr := range []string{hostOnISP1V6, hostOnISP2V6} {
		wanted.Uplinks[i].Addresses = append(wanted.Uplinks[i].Addresses, netip.MustParseAddr(addr))
		wanted.Uplinks[i].GuardV6 = true
	}
	return wanted
}

func TestPoolPortsOfIPv6AreHidden(t *testing.T) {
	w := newWorldV6(t)
	wanted := w.wantedV6()
	wanted.Uplinks[1].Taken = true
	r := w.apply(wanted)
	for _, port := range []int{1024, poolPort, 32767, 61000, 65535} {
		for _, addr := range []string{hostOnISP1V6, hostOnISP2V6} {
			w.unanswered(w.syn(w.isp1, addr, port), w.isp1, addr)
		}
	}
	for _, port := range []int{1023, 32768, 60999} {
		w.reach(w.isp1, hostOnISP1V6, port, w.listen(w.host, port))
	}
	server := w.listen(w.host, poolPort)
	w.reach(w.lan, hostOnLANV6, poolPort, server)
	w.reach(w.isp1, hostOnLANV6, poolPort, server)
	w.reach(w.isp2, hostOnISP2V6, poolPort, server) // by an uplink that somebody else takes
	w.must(r.Apply(w.wanted()))
	w.reach(w.isp1, hostOnISP1V6, poolPort, server)
}

// TestManyPortRangesOfIPv6 are looked up in one set with those of IPv4.
func TestManyPortRangesOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	wanted := w.wantedV6()
	wanted.Ports = evenPorts()
	w.apply(wanted)
	w.unanswered(w.syn(w.isp1, hostOnISP1V6, 65534), w.isp1, hostOnISP1V6)
	w.reach(w.isp1, hostOnISP1V6, 65535, w.listen(w.host, 65535))
}

func TestHeaderLessUplinkOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	isp := w.connectPPP()
	w.addV6(w.host, "ppp0", "2001:db8:3::1")
	w.addV6(isp, "ppp0", "2001:db8:3::2")
	ppp := w.uplink("ppp0", "2001:db8:3::1")
	ppp.HeaderLess = true
	wanted := w.wantedV6()
	wanted.Uplinks = append(wanted.Uplinks, ppp)
	w.apply(wanted)
	w.unanswered(w.syn(isp, "2001:db8:3::1", poolPort), isp, "2001:db8:3::1")
	w.reach(isp, "2001:db8:3::1", otherPort, w.listen(w.host, otherPort))
}

// datagramV6 is a frame from the first provider with a flow label, and extension headers that say nothing.
func datagramV6(from, to net.HardwareAddr, dst string, port int, extensions ...byte) []byte {
	src, addr := netip.MustParseAddr(isp1AddrV6), netip.MustParseAddr(dst)
	udp := binary.BigEndian.AppendUint16([]byte{0, 53}, uint16(port))
	udp = append(udp, 0, 16, 0, 0, 'd', 'a', 't', 'a', 'g', 'r', 'a', 'm')
	sum := packet.PseudoHeader(packet.AddrOf(src), packet.AddrOf(addr), unix.IPPROTO_UDP, len(udp))
	binary.BigEndian.PutUint16(udp[6:], ^packet.Fold(packet.Sum(sum, udp)))
	next := byte(unix.IPPROTO_UDP)
	for _, kind := range slices.Backward(extensions) {
		header := []byte{next, 0, 1, 4, 0, 0, 0, 0} // options that are padding
		if kind != unix.IPPROTO_HOPOPTS && kind != unix.IPPROTO_DSTOPTS {
			header = []byte{next, 0, 0, 0, 0, 0, 0, 7} // a fragment that is alone, or a route without stations
		}
		next, udp = kind, append(header, udp...)
	}
	f := append(append(slices.Clone(to), from...), 0x86, 0xdd, 0x6f, 0xff, 0xff, 0xff)
	f = append(binary.BigEndian.AppendUint16(f, uint16(len(udp))), next, 64)
	return append(append(append(f, src.AsSlice()...), addr.AsSlice()...), udp...)
}

// TestExtensionHeadersAreHidden, whatever the port, of packets to addresses of uplinks; what is given back passes.
func TestExtensionHeadersAreHidden(t *testing.T) {
	w := newWorldV6(t)
	r := w.apply(w.wantedV6())
	server := w.listenUDP(w.host, otherPort)
	far, near := w.links(w.isp1, "wan0")
	first := func(want int, frames ...[]byte) (n int) { // by another processor one may come after the end
		t.Helper()
		for _, f := range frames {
			w.inject(w.isp1, f)
		}
		w.send(w.isp1, hostOnISP1V6, otherPort, "the end")
		for ended := false; !ended || n < want; {
			if got, _ := w.receive(server); got == "the end" {
				ended = true
			} else {
				n++
			}
		}
		return n
	}
	for _, headers := range [][]byte{{0}, {43}, {44}, {60}, {44, 60}, {0, 60}, {43, 60}} {
		hidden := datagramV6(far, near, hostOnISP1V6, otherPort, headers...)
		if n := first(2, hidden, datagramV6(far, near, hostOnLANV6, otherPort, headers...), datagramV6(backMAC[:], near, hostOnISP1V6, otherPort, headers...)); n != 2 {
			t.Errorf("extension headers %v: %d datagrams reached the host, want that to another address and that given back", headers, n)
		}
	}
	if n := first(1, datagramV6(far, near, hostOnISP1V6, otherPort), datagramV6(far, near, hostOnISP1V6, poolPort)); n != 1 {
		t.Errorf("without extension headers %d datagrams reached the host, want one", n)
	}
	big := strings.Repeat("fragmented", 300)
	w.send(w.isp1, hostOnISP1V6, otherPort, big)
	if n := first(0); n != 0 {
		t.Error("a datagram in fragments reached the host")
	}
	w.must(r.Apply(w.wanted()))
	if n := first(1, datagramV6(far, near, hostOnISP1V6, otherPort, 60)); n != 1 {
		t.Error("a datagram is hidden although IPv6 is not carried")
	}
}

// TestOtherProtocolsOfIPv6AreHidden; echo requests are the host's.
func TestOtherProtocolsOfIPv6AreHidden(t *testing.T) {
	w := newWorldV6(t)
	neighbour := labtest.Namespace(t, "neighbour")
	w.connect("wan2", "198.51.101.1", neighbour, "198.51.101.2", net.HardwareAddr(backMAC[:]))
	w.addV6(w.host, "wan2", "2001:db8:3::1")
	w.addV6(neighbour, "eth0", "2001:db8:3::2")
	wanted := w.wantedV6()
	wanted.Uplinks = append(wanted.Uplinks, w.uplink("wan2", "2001:db8:3::1"))
	w.apply(wanted)
	for _, proto := range []string{"ip6:47", "ip6:50", "ip6:132", "ip6:253"} {
		server, err := w.host.ListenPacket(proto, "::")
		w.must(err)
		defer server.Close()
		w.sendBy(w.isp1, proto, hostOnISP1V6, "hidden")
		w.sendBy(w.isp1, proto, hostOnLANV6, "another address")
		w.expect(server, "another address")
		w.sendBy(w.lan, proto, hostOnLANV6, "of the LAN")
		w.expect(server, "of the LAN")
		w.sendBy(neighbour, proto, "2001:db8:3::1", "given back")
		w.expect(server, "given back")
	}
	w.reach(neighbour, "2001:db8:3::1", poolPort, w.listen(w.host, poolPort))
	echo, err := w.isp1.ListenPacket("ip6:ipv6-icmp", isp1AddrV6)
	w.must(err)
	defer echo.Close()
	w.must(echo.SetDeadline(time.Now().Add(patience)))
	_, err = echo.WriteTo([]byte{packet.ICMPv6Echo, 0, 0, 0, 0, 1, 0, 1}, &net.IPAddr{IP: net.ParseIP(hostOnISP1V6)})
	w.must(err)
	for reply := make([]byte, 64); reply[0] != packet.ICMPv6EchoReply; {
		_, _, err := echo.ReadFrom(reply)
		w.must(err)
	}
}

// TestExemptSetOfIPv6: prefixes of both families in one list.
func TestExemptSetOfIPv6(t *testing.T) {
	var list []netip.Prefix
	for _, p := range []string{"10.0.0.0/9", "fd00::/9", "fd80::/9", "2001:db8::/32", "2001:db8:1::/48", "ff00::/8"} {
		list = append(list, netip.MustParsePrefix(p))
	}
	at := func(a string) []byte { return netip.MustParseAddr(a).AsSlice() }
	want := []key{
		{data: at("2001:db8::")}, {data: at("2001:db9::"), end: true}, {data: at("fd00::")}, {data: at("fe00::"), end: true}, {data: at("ff00::")},
	}
	if got := exemptSet(ownedInet, ofIPv6, setExempt, list).keys; !slices.EqualFunc(got, want, func(a, b key) bool { return a.end == b.end && slices.Equal(a.data, b.data) }) {
		t.Errorf("%v, want %v", got, want)
	}
	w := newWorldV6(t)
	wanted := w.wantedV6()
	wanted.Exempt = append(list, netip.MustParsePrefix(isp1AddrV6+"/128"))
	server := w.listenUDP(w.lan, 9)
	r := w.apply(wanted)
	w.send(w.isp1, lanAddrV6, 9, "exempt")
	if got, _ := w.receive(server); got != "exempt" {
		t.Errorf("received %q", got)
	}
	w.must(r.Apply(w.wantedV6()))
}

// TestTagsOfIPv6: a tag with a priority and no VLAN hides nothing from the rules.
func TestTagsOfIPv6(t *testing.T) {
	w := newWorldV6(t)
	w.apply(w.wantedV6())
	hidden, seen := w.listenUDP(w.host, poolPort), w.listenUDP(w.host, otherPort)
	far, near := w.links(w.isp1, "wan0")
	for _, tag := range [][]byte{nil, {0x81, 0, 0, 0}, {0x81, 0, 0xf0, 0}, {0x88, 0xa8, 0x60, 0}} {
		for _, port := range []int{poolPort, otherPort} {
			w.inject(w.isp1, slices.Insert(datagramV6(far, near, hostOnISP1V6, port), 12, tag...))
		}
		if got, _ := w.receive(seen); got != "datagram" {
			t.Errorf("tag %x: received %q", tag, got)
		}
	}
	if n := w.arrived(hidden); n > 0 {
		t.Errorf("%d datagrams to a port of the pool reached the host", n)
	}
}
