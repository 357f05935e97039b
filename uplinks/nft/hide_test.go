package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

func TestPoolPortsAreHiddenFromTheHost(t *testing.T) {
	w := newWorld(t)
	w.apply(w.wanted())
	tap := w.sniff("wan0")
	for _, port := range []int{1024, poolPort, 32767, 61000, 65535} {
		fd := w.syn(w.isp1, hostOnISP1, port)
		w.sawSYN(tap, port)
		w.unanswered(fd, w.isp1, hostOnISP1)
	}
	for _, port := range []int{1023, 32768, 60999} {
		w.reach(w.isp1, hostOnISP1, port, w.listen(w.host, port))
	}
}

// TestOnlyAddressesOfUplinksAreHidden: of all uplinks, whichever receives.
func TestOnlyAddressesOfUplinksAreHidden(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Uplinks[1].Taken = true
	r := w.apply(wanted)
	server := w.listen(w.host, poolPort)
	w.reach(w.lan, "192.168.7.1", poolPort, server)
	w.reach(w.isp1, "192.168.7.1", poolPort, server)
	w.unanswered(w.syn(w.isp1, "203.0.113.1", poolPort), w.isp1, "203.0.113.1")
	wanted.Uplinks = wanted.Uplinks[:1]
	w.must(r.Apply(wanted))
	w.reach(w.isp1, "203.0.113.1", poolPort, server)
}

// TestWholeAddressesAreHidden: the host sees nothing of what is sent to an inside host's own address.
func TestWholeAddressesAreHidden(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Uplinks[0].Whole = wanted.Uplinks[0].Addresses
	r := w.apply(wanted)
	server := w.listen(w.host, otherPort)
	w.syn(w.isp1, hostOnISP1, otherPort)
	if first := w.reach(w.lan, "192.168.7.1", otherPort, server); !prefix("192.168.7.1").Contains(first.Addr()) {
		t.Errorf("%s reached the host", first)
	}
	w.must(r.Apply(w.wanted()))
	w.reach(w.isp1, hostOnISP1, otherPort, server)
}

// TestExemptSet: prefixes that touch or overlap are one interval.
func TestExemptSet(t *testing.T) {
	var list []netip.Prefix
	for _, p := range []string{"10.128.0.0/9", "10.0.0.0/9", "10.1.0.0/16", "192.168.0.0/24", "192.168.2.0/24", "128.0.0.0/1"} {
		list = append(list, netip.MustParsePrefix(p))
	}
	want := []key{{data: []byte{10, 0, 0, 0}}, {data: []byte{11, 0, 0, 0}, end: true}, {data: []byte{128, 0, 0, 0}}}
	if got := exemptSet(ownedInet, ofIPv4, setExempt, list).keys; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Exempt = append(list[:4:4], netip.MustParsePrefix("192.168.1.0/24"))
	w.apply(wanted)
}

// givesBack adds an uplink to a neighbour whose frames are what is given back.
func (w *world) givesBack() (neighbour *lab.Namespace, wanted Wanted) {
	w.t.Helper()
	neighbour = labtest.Namespace(w.t, "neighbour")
	w.connect("wan2", "198.51.101.1", neighbour, "198.51.101.2", net.HardwareAddr(backMAC[:]))
	wanted = w.wanted()
	wanted.Uplinks = append(wanted.Uplinks, w.uplink("wan2", "198.51.101.1"))
	return neighbour, wanted
}

func TestFramesGivenBackPass(t *testing.T) {
	w := newWorld(t)
	neighbour, wanted := w.givesBack()
	r := w.apply(wanted)
	w.reach(neighbour, "198.51.101.1", poolPort, w.listen(w.host, poolPort))

	wanted.Uplinks[2].GiveBackMAC = [6]byte{}
	w.must(r.Apply(wanted))
	w.unanswered(w.syn(neighbour, "198.51.101.1", poolPort), neighbour, "198.51.101.1")
}

// TestFragmentsAreHidden: only those to the uplink's own addresses are, whatever their port.
func TestFragmentsAreHidden(t *testing.T) {
	w := newWorld(t)
	w.apply(w.wanted())
	big := strings.Repeat("fragmented", 300)
	server := w.listenUDP(w.host, otherPort)
	w.send(w.isp1, hostOnISP1, otherPort, big)
	w.send(w.isp1, hostOnISP1, otherPort, "whole")
	if got, _ := w.receive(server); got != "whole" {
		t.Errorf("received %d bytes, want only the whole datagram", len(got))
	}
	w.send(w.lan, "192.168.7.1", otherPort, big)
	if got, _ := w.receive(server); got != big {
		t.Errorf("received %d bytes, want the datagram of the LAN", len(got))
	}
}

func TestFragmentsGivenBackPass(t *testing.T) {
	w := newWorld(t)
	neighbour, wanted := w.givesBack()
	w.apply(wanted)
	server := w.listenUDP(w.host, poolPort)
	w.send(neighbour, "198.51.101.1", poolPort, strings.Repeat("fragmented", 300))
	if got, _ := w.receive(server); len(got) != 3000 {
		t.Errorf("received %d bytes", len(got))
	}
}

// TestOtherProtocolsAreHidden: only those to the uplink's own addresses are, in pieces too, and what is given back passes. IGMP is
// the host's.
func TestOtherProtocolsAreHidden(t *testing.T) {
	w := newWorld(t)
	neighbour, wanted := w.givesBack()
	w.apply(wanted)
	big := strings.Repeat("pieces", 500)
	for proto, hidden := range map[string]bool{"ip4:47": true, "ip4:50": true, "ip4:132": true, "ip4:253": true, "ip4:2": false} {
		server, err := w.host.ListenPacket(proto, "0.0.0.0")
		w.must(err)
		defer server.Close()
		w.sendBy(w.isp1, proto, hostOnISP1, "hidden")
		if !hidden {
			w.expect(server, "hidden")
		}
		w.sendBy(w.isp1, proto, hostOnISP1, big)
		if !hidden {
			w.expect(server, big)
		}
		w.sendBy(w.isp1, proto, "192.168.7.1", "another address")
		w.expect(server, "another address")
		w.sendBy(w.lan, proto, "192.168.7.1", "of the LAN")
		w.expect(server, "of the LAN")
		w.sendBy(neighbour, proto, "198.51.101.1", "given back")
		w.expect(server, "given back")
	}
}

// sendBy sends one datagram of a protocol.
func (w *world) sendBy(ns *lab.Namespace, proto, addr, payload string) {
	w.t.Helper()
	any := "0.0.0.0"
	if strings.HasPrefix(proto, "ip6") {
		any = "::"
	}
	c, err := ns.ListenPacket(proto, any)
	w.must(err)
	defer c.Close()
	_, err = c.WriteTo([]byte(payload), &net.IPAddr{IP: net.ParseIP(addr)})
	w.must(err)
}

// expect fails unless the next datagram of a raw socket is this one.
func (w *world) expect(c net.PacketConn, want string) {
	w.t.Helper()
	w.must(c.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 1<<16)
	n, _, err := c.ReadFrom(b)
	if err != nil || string(b[:n]) != want {
		w.t.Fatalf("received %q, %v; want %q", b[:n], err, want)
	}
}

func TestEchoRequestsPass(t *testing.T) {
	w := newWorld(t)
	w.apply(w.wanted())
	c, err := w.isp1.ListenPacket("ip4:icmp", "0.0.0.0")
	w.must(err)
	defer c.Close()
	request := []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}
	_, err = c.WriteTo(request, &net.IPAddr{IP: net.ParseIP(hostOnISP1)})
	w.must(err)
	reply := make([]byte, 64)
	if n, _, err := c.ReadFrom(reply); err != nil || n != 8 || reply[0] != 0 {
		t.Errorf("echo: %x, %v", reply[:n], err)
	}
}

// connectPPP gives the host an uplink without Ethernet headers, ppp0, and returns its provider.
func (w *world) connectPPP() *lab.Namespace {
	w.t.Helper()
	isp := labtest.Namespace(w.t, "ppp")
	link, err := lab.ConnectTUN(
		lab.End{NS: w.host, Device: "ppp0", Prefix: prefix("100.64.0.1")},
		lab.End{NS: isp, Device: "ppp0", Prefix: prefix("100.64.0.2")}, 0)
	w.must(err)
	w.t.Cleanup(func() { _ = link.Unplug() })
	return isp
}

func TestHeaderLessUplink(t *testing.T) {
	w := newWorld(t)
	isp := w.connectPPP()
	wanted := w.wanted()
	ppp := w.uplink("ppp0", "100.64.0.1")
	ppp.HeaderLess = true
	wanted.Uplinks = append(wanted.Uplinks, ppp)
	w.apply(wanted)
	w.unanswered(w.syn(isp, "100.64.0.1", poolPort), isp, "100.64.0.1")
	w.reach(isp, "100.64.0.1", otherPort, w.listen(w.host, otherPort))
}

func TestDeviceComesBack(t *testing.T) {
	w := newWorld(t)
	r := w.apply(w.wanted())
	both := w.wanted()
	w.must(w.uplink1.Unplug())
	gone := both
	gone.Uplinks = both.Uplinks[1:]
	w.must(r.Apply(gone))
	w.must(w.uplink1.Replug())
	w.route(w.isp1, hostOnISP1)
	again := w.wanted()
	if again.Uplinks[0].Index == both.Uplinks[0].Index {
		t.Fatal("the device kept its index: nothing tested")
	}
	w.must(r.Apply(again))
	w.unanswered(w.syn(w.isp1, hostOnISP1, poolPort), w.isp1, hostOnISP1)
}

func TestChangesAreFollowed(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	r := w.apply(wanted)
	wanted.Ports = []PortRange{{6000, 6999}, {5500, 5999}, {6500, 7999}}
	w.must(r.Apply(wanted))
	w.reach(w.isp1, hostOnISP1, poolPort, w.listen(w.host, poolPort))
	for _, port := range []int{5500, 6000, 7999} {
		w.unanswered(w.syn(w.isp1, hostOnISP1, port), w.isp1, hostOnISP1)
	}
	wanted.Uplinks[0].Addresses = []netip.Addr{netip.MustParseAddr("198.51.100.77")}
	w.must(r.Apply(wanted))
	w.reach(w.isp1, hostOnISP1, 6000, w.listen(w.host, 6000))
}

func TestManyPortRanges(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Ports = evenPorts()
	w.apply(wanted)
	w.unanswered(w.syn(w.isp1, hostOnISP1, 65534), w.isp1, hostOnISP1)
	w.reach(w.isp1, hostOnISP1, 65535, w.listen(w.host, 65535))
}

// evenPorts is as many ranges as there can be.
func evenPorts() (ranges []PortRange) {
	for p := 1024; p < 65535; p += 2 {
		ranges = append(ranges, PortRange{uint16(p), uint16(p)})
	}
	return ranges
}

// TestTags: a tag with a priority and no VLAN hides nothing from the rules, in the frame or beside it; they leave frames of
// VLANs alone.
func TestTags(t *testing.T) {
	w := newWorld(t)
	w.apply(w.wanted())
	seen, err := w.host.StartStackCapture("wan0", nil)
	w.must(err)
	t.Cleanup(func() { _, _ = seen.Stop() })
	far, near := w.links(w.isp1, "wan0")
	for _, c := range []struct {
		tag    []byte
		hidden bool
	}{
		{nil, true}, {[]byte{0x81, 0, 0, 0}, true}, {[]byte{0x81, 0, 0xf0, 0}, true}, {[]byte{0x88, 0xa8, 0x60, 0}, true},
		{[]byte{0x81, 0, 0, 5}, false}, {[]byte{0x81, 0, 0xe1, 0}, false}, {[]byte{0x88, 0xa8, 0, 5}, false},
	} {
		for _, more := range []uint16{0, 0x2000} { // fragments
			frame := slices.Insert(datagram(far, near, poolPort, more), 12, c.tag...)
			before := seen.Report().UDP + seen.Report().Fragments
			w.inject(w.isp1, frame)
			passed := datagram(far, near, otherPort, 0)
			_, err := seen.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.Dst.Port() == otherPort },
				func() error { w.inject(w.isp1, passed); return nil })
			w.must(err)
			if n := seen.Report().UDP + seen.Report().Fragments - before; (n == 1) != c.hidden {
				t.Errorf("tag %x, fragment %#x: the stack got %d datagrams", c.tag, more, n)
			}
		}
	}
	w.must(w.isp1.TagPriority("eth0", 5))
	w.unanswered(w.syn(w.isp1, hostOnISP1, poolPort), w.isp1, hostOnISP1)
	w.reach(w.isp1, hostOnISP1, otherPort, w.listen(w.host, otherPort))
}

// links are the addresses of the two ends of a cable.
func (w *world) links(ns *lab.Namespace, device string) (far, near net.HardwareAddr) {
	w.t.Helper()
	f, err := ns.Handle().LinkByName("eth0")
	w.must(err)
	n, err := w.host.Handle().LinkByName(device)
	w.must(err)
	return f.Attrs().HardwareAddr, n.Attrs().HardwareAddr
}

// datagram is a frame to the host from its first provider, without a UDP checksum.
func datagram(from, to net.HardwareAddr, port int, fragment uint16) []byte {
	f := append(slices.Clone(to), from...)
	f = append(f, 8, 0, 0x45, 0, 0, 36, 0, 7)
	f = binary.BigEndian.AppendUint16(f, fragment)
	f = append(f, 64, unix.IPPROTO_UDP, 0, 0)
	f = append(append(f, netip.MustParseAddr(isp1Addr).AsSlice()...), netip.MustParseAddr(hostOnISP1).AsSlice()...)
	binary.BigEndian.PutUint16(f[24:], ^packet.Fold(packet.Sum(0, f[14:34])))
	f = binary.BigEndian.AppendUint16(append(f, 0, 53), uint16(port))
	return append(f, 0, 16, 0, 0, 'd', 'a', 't', 'a', 'g', 'r', 'a', 'm')
}

// inject sends a frame as it is.
func (w *world) inject(ns *lab.Namespace, frame []byte) {
	w.t.Helper()
	index, err := ns.Index("eth0")
	w.must(err)
	w.must(ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	}))
}

// sniff opens a socket that sees every frame of a device of the host before the rules do.
func (w *world) sniff(device string) int {
	w.t.Helper()
	index, err := w.host.Index(device)
	w.must(err)
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	var fd int
	w.must(w.host.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
		return err
	}))
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	w.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	w.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}))
	return fd
}

// sawSYN waits until the sniffer has seen a TCP packet to port.
func (w *world) sawSYN(fd, port int) {
	w.t.Helper()
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		w.must(err)
		if n >= 40 && buf[9] == unix.IPPROTO_TCP && int(binary.BigEndian.Uint16(buf[22:])) == port {
			return
		}
	}
}
