package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks/wire"
)

var (
	wanAddrV6 = netip.MustParseAddr("2001:db8:1::2")
	ispAddrV6 = netip.MustParseAddr("2001:db8:1::1")
)

// Extension headers: one of 8 bytes that says nothing, and a Fragment header.
var (
	padding  = []byte{0, 0, 1, 4, 0, 0, 0, 0}
	fragment = []byte{0, 0, 0, 1, 0, 0, 0, 9}
)

func filterV6() wire.FilterConfig {
	return wire.FilterConfig{
		Addresses: []netip.Addr{netip.MustParseAddr("2001:db8:1::3"), wanAddr, wanAddrV6}, Ports: []wire.PortRange{{First: 1024, Last: 32767}},
		Services: []uint16{53, 51820}, Secret: secret,
	}
}

// uplinkV6 is uplink for both families.
func (p *pair) uplinkV6(t testing.TB) *wire.Port {
	port := openPort(t, p.gw, "wan1", wire.Config{MAC: wanMAC, GatewayMAC: ispMAC, GatewayMACV6: ispMAC})
	labtest.Must(t, port.SetFilter(filterV6()))
	return port
}

// providerV6 is provider for IPv6.
func (p *pair) providerV6(t testing.TB) *wire.Port {
	return openPort(t, p.isp, "cust", wire.Config{MAC: ispMAC, GatewayMACV6: wanMAC})
}

// packetV6 is a frame to wan1 with a payload of one protocol behind extension headers of the same kind.
func packetV6(dst netip.Addr, proto byte, payload []byte, extensions ...byte) []byte {
	next := proto
	var chain []byte
	for _, kind := range slices.Backward(extensions) {
		header := slices.Clone(padding)
		if kind == unix.IPPROTO_FRAGMENT {
			header = slices.Clone(fragment)
		}
		header[0] = next
		next, chain = kind, append(header, chain...)
	}
	payload = append(chain, payload...)
	f := append(make([]byte, packet.VnetLen), wanMAC[:]...)
	f = append(append(f, ispMAC[:]...), 0x86, 0xdd, 0x60, 0xf1, 0x23, 0x45)
	f = append(binary.BigEndian.AppendUint16(f, uint16(len(payload))), next, 64)
	f = append(append(f, ispAddrV6.AsSlice()...), dst.AsSlice()...)
	return append(f, payload...)
}

// toPort is the beginning of a TCP segment or UDP datagram.
func toPort(port uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x9c, 0x75}, port)
	return append(b, 0, 20, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0)
}

func icmpV6(kind byte) []byte { return append([]byte{kind, 0, 0, 0, 0, 5, 0, 1}, make([]byte, 40)...) }

type filterCase struct {
	name  string
	frame []byte
	pass  bool
}

// expectPassed sends each frame, and one that is received after it.
func expectPassed(t *testing.T, cases []filterCase, frames <-chan []byte, send func([]byte)) {
	t.Helper()
	for _, c := range cases {
		send(slices.Clone(c.frame))
		send(packetV6(wanAddrV6, 17, append(toPort(2001), "marker"...)))
		got := next(t, frames)
		if passed := !bytes.Contains(got, []byte("marker")); passed != c.pass {
			t.Errorf("%s: passed %t", c.name, passed)
		} else if passed {
			if !bytes.Equal(got[packet.VnetLen+12:], c.frame[packet.VnetLen+12:]) {
				t.Errorf("%s: % x became % x", c.name, c.frame, got)
			}
			next(t, frames)
		}
	}
}

// casesV6 are what may be ours, and what is the host's alone.
func casesV6() []filterCase {
	other := netip.MustParseAddr("2001:db8:1::4")
	near := netip.MustParseAddr("2001:db8:2::2")
	cases := []filterCase{
		{"udp in range", packetV6(wanAddrV6, 17, toPort(1024)), true},
		{"udp at the end", packetV6(wanAddrV6, 17, toPort(32767)), true},
		{"udp below", packetV6(wanAddrV6, 17, toPort(1023)), false},
		{"udp above", packetV6(wanAddrV6, 17, toPort(32768)), false},
		{"udp to a service", packetV6(wanAddrV6, 17, toPort(51820)), true},
		{"tcp to that port", packetV6(wanAddrV6, 6, toPort(51820)), false},
		{"tcp in range", packetV6(wanAddrV6, 6, toPort(2000)), true},
		{"tcp below", packetV6(wanAddrV6, 6, toPort(22)), false},
		{"another address of ours", packetV6(netip.MustParseAddr("2001:db8:1::3"), 6, toPort(2000)), true},
		{"other address", packetV6(other, 17, toPort(2000)), false},
		{"same interface identifier", packetV6(near, 17, toPort(2000)), false},
		{"link-local", packetV6(netip.MustParseAddr("fe80::2"), 17, toPort(2000)), false},
		{"gre", packetV6(wanAddrV6, 47, []byte("gre!")), true},
		{"no next header", packetV6(wanAddrV6, 59, nil), true},
		{"gre, other address", packetV6(other, 47, []byte("gre!")), false},
		{"icmp of IPv4", packetV6(wanAddrV6, 1, icmpV6(0)), false},
		{"igmp", packetV6(wanAddrV6, 2, icmpV6(0)), false},
		{"truncated", packetV6(wanAddrV6, 17, nil), false},
	}
	for kind := range 256 {
		ours := kind >= packet.ICMPv6Unreachable && kind <= packet.ICMPv6Parameter || kind == packet.ICMPv6EchoReply
		cases = append(cases, filterCase{fmt.Sprint("icmp type ", kind), packetV6(wanAddrV6, 58, icmpV6(byte(kind))), ours})
	}
	for _, header := range []byte{0, 43, 44, 60} {
		cases = append(cases,
			filterCase{"extension header", packetV6(wanAddrV6, 17, toPort(22), header), true},
			filterCase{"two extension headers", packetV6(wanAddrV6, 6, toPort(22), 60, header), true},
			filterCase{"extension header, other address", packetV6(other, 17, toPort(22), header), false},
		)
	}
	return cases
}

// TestFilterOfIPv6 knows addresses and protocols as that of IPv4; neighbour discovery is the host's.
func TestFilterOfIPv6(t *testing.T) {
	p := newPair(t)
	out := p.providerV6(t).Sender()
	expectPassed(t, casesV6(), reader(p.uplinkV6(t)), func(f []byte) { send(t, out, f) })
}

func TestHeaderLessFilterOfIPv6(t *testing.T) {
	port, far := openTUN(t)
	labtest.Must(t, port.SetFilter(filterV6()))
	expectPassed(t, casesV6(), reader(port), func(f []byte) {
		_, err := far.Write(append(make([]byte, packet.VnetLen), f[packet.VnetLen+packet.EthernetLen:]...))
		labtest.Must(t, err)
	})
}

// TestFilterOfWholeIPv6Addresses: all but neighbour discovery is received.
func TestFilterOfWholeIPv6Addresses(t *testing.T) {
	p := newPair(t)
	port := p.uplinkV6(t)
	c := filterV6()
	c.Whole = []netip.Addr{wanAddrV6}
	labtest.Must(t, port.SetFilter(c))
	cases := []filterCase{
		{"any port", packetV6(wanAddrV6, 6, toPort(22)), true},
		{"echo request", packetV6(wanAddrV6, 58, icmpV6(128)), true},
		{"igmp", packetV6(wanAddrV6, 2, icmpV6(0)), true},
		{"extension header", packetV6(wanAddrV6, 17, toPort(22), 60), true},
		{"not whole", packetV6(c.Addresses[0], 6, toPort(22)), false},
	}
	for _, kind := range []byte{129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 142, 143, 144} {
		local := kind >= packet.ICMPv6FirstLocal && kind <= packet.ICMPv6LastLocal || kind == packet.ICMPv6Listener
		cases = append(cases, filterCase{"icmp", packetV6(wanAddrV6, 58, icmpV6(kind)), !local})
	}
	out := p.providerV6(t).Sender()
	expectPassed(t, cases, reader(port), func(f []byte) { send(t, out, f) })
}

// TestFilterOfPrefixes: all that is sent into a prefix of any length is received, but for an address that is an uplink's own.
func TestFilterOfPrefixes(t *testing.T) {
	p := newPair(t)
	port := p.uplinkV6(t)
	c := filterV6()
	own := netip.MustParseAddr("2001:db8:100:5::5")
	c.Addresses = append(c.Addresses, own)
	for _, prefix := range []string{"2001:db8:100::/48", "2001:db8:200::/39", "2001:db8:400:8::/64", "2001:db8:500::7:0/112", "2001:dc0::/32"} {
		c.Prefixes = append(c.Prefixes, netip.MustParsePrefix(prefix))
	}
	labtest.Must(t, port.SetFilter(c))
	cases := []filterCase{
		{"own", packetV6(own, 6, toPort(22)), false},
		{"own, of the pool", packetV6(own, 6, toPort(2000)), true},
	}
	for address, within := range map[string]bool{
		"2001:db8:100::1": true, "2001:db8:100:ffff:ffff::": true, "2001:db8:101::1": false, "2001:db8:ff::1": false,
		"2001:db8:200::1": true, "2001:db8:3ff::1": true, "2001:db8:1ff::1": false, "2001:db8:400:8::9": true, "2001:db8:400:9::9": false,
		"2001:db8:500::7:1234": true, "2001:db8:500::8:0": false, "2001:db8:500::6:ffff": false, "2001:dc0:9::9": true, "2001:dc1::": false,
	} {
		to := netip.MustParseAddr(address)
		cases = append(cases, filterCase{"segment to " + address, packetV6(to, 6, toPort(22)), within},
			filterCase{"echo request to " + address, packetV6(to, 58, icmpV6(128)), within},
			filterCase{"extension header to " + address, packetV6(to, 17, toPort(22), 60), within},
			filterCase{"neighbour solicitation to " + address, packetV6(to, 58, icmpV6(135)), false})
	}
	out := p.providerV6(t).Sender()
	expectPassed(t, cases, reader(port), func(f []byte) { send(t, out, f) })
}

// TestFilterBoundsOfIPv6: the largest program of both families is not too large for the kernel.
func TestFilterBoundsOfIPv6(t *testing.T) {
	p := newPair(t)
	port := p.uplink(t)
	large := wire.FilterConfig{Ports: make([]wire.PortRange, wire.MaxFilterPorts), Services: make([]uint16, wire.MaxFilterServices)}
	for i := range wire.MaxFilterAddresses - 1 {
		large.Addresses = append(large.Addresses, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	for i := range wire.MaxFilterAddressesV6 - 1 {
		large.Addresses = append(large.Addresses, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 2, byte(i), 15: 2}))
	}
	for i := range wire.MaxFilterPrefixes {
		large.Prefixes = append(large.Prefixes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 3, byte(i)}), 112))
	}
	large.Addresses = append(large.Addresses, wanAddr, wanAddrV6)
	large.Ports[wire.MaxFilterPorts-1] = wire.PortRange{First: 2000, Last: 2000}
	large.Services[wire.MaxFilterServices-1] = 3000
	labtest.Must(t, port.SetFilter(large))
	out, outV6, frames := p.provider(t).Sender(), p.providerV6(t).Sender(), reader(port)
	for _, to := range []uint16{2000, 3000} {
		send(t, out, udpFrame(t, ispAddr, wanAddr, to, "x"))
		next(t, frames)
		send(t, outV6, packetV6(wanAddrV6, 17, toPort(to)))
		next(t, frames)
	}
	send(t, outV6, packetV6(large.Prefixes[wire.MaxFilterPrefixes-1].Addr(), 17, toPort(1)))
	next(t, frames)
	large.Addresses = append(large.Addresses, ispAddrV6)
	if err := port.SetFilter(large); !errors.Is(err, wire.ErrFilter) {
		t.Errorf("one IPv6 address too many: %v", err)
	}
	large.Addresses, large.Prefixes = nil, append(large.Prefixes, large.Prefixes[0])
	if err := port.SetFilter(large); !errors.Is(err, wire.ErrFilter) {
		t.Errorf("one prefix too many: %v", err)
	}
}

// TestNextHopOfEachFamily: frames of IPv6 go to the gateway of IPv6, and what is no frame of it nowhere.
func TestNextHopOfEachFamily(t *testing.T) {
	p := newPair(t)
	fd := rawSocket(t, p.isp, "cust")
	gateways := [2][6]byte{{2, 4, 4, 4, 4, 4}, {2, 6, 6, 6, 6, 6}}
	port := openPort(t, p.gw, "wan1", wire.Config{MAC: wanMAC, GatewayMAC: gateways[0], GatewayMACV6: gateways[1]})
	s := port.Sender()
	for range 2 {
		s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "hop"))
		s.Queue(packetV6(ispAddrV6, 17, append(toPort(2000), "hop"...)))
		labtest.Must(t, s.Flush())
		for _, want := range gateways {
			buf := make([]byte, 2000)
			for {
				n, err := unix.Read(fd, buf)
				labtest.Must(t, err)
				if bytes.Contains(buf[:n], []byte("hop")) {
					break
				}
			}
			if [6]byte(buf) != want || [6]byte(buf[6:]) != wanMAC {
				t.Errorf("sent from % x to % x, want % x", buf[6:12], buf[:6], want)
			}
		}
		gateways[0][5], gateways[1][5] = 7, 7
		port.SetNextHop(gateways[0], gateways[1], 1500)
	}
	short := packetV6(ispAddrV6, 17, nil)
	s.Queue(short[:len(short)-1])
	labtest.Must(t, s.Flush())
	if got := port.Stats(); got.Sent != 4 || got.DroppedRefused != 1 {
		t.Errorf("stats %+v", got)
	}
}

// TestHeaderLessIPv6: packets leave such a device as what they are, and get the right Ethernet header when they come in.
func TestHeaderLessIPv6(t *testing.T) {
	const length = 30000
	port, far := openTUN(t)
	labtest.Must(t, port.SetFilter(filterV6()))
	s := port.Sender()
	s.Queue(packetV6(ispAddrV6, 17, append(toPort(2000), "of IPv6"...)))
	s.Queue(superV6(ispAddrV6, packet.ProtoTCP, length, 1440))
	labtest.Must(t, s.Flush())
	var payload []byte
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second))
	for buf := make([]byte, 1<<16); len(payload) < length; {
		n, err := far.Read(buf)
		labtest.Must(t, err)
		ip := buf[packet.VnetLen:n]
		var p packet.Packet
		if p.DecodeIPv6(ip, 0); p.Kind == packet.TCP && p.SrcPort == 0x9c75 {
			payload = append(payload, payloadV6(t, ip, &p)...)
		}
	}
	if !bytes.Equal(payload, pattern(length)) {
		t.Error("payload differs")
	}
	if got := port.Stats(); got.Sent != 2 {
		t.Errorf("stats %+v", got)
	}
	frames := reader(port)
	want := superV6(wanAddrV6, packet.ProtoTCP, length, 1440)
	copy(want[packet.VnetLen:], wanMAC[:])
	copy(want[packet.VnetLen+6:], make([]byte, 6))
	sent := append(slices.Clone(want[:packet.VnetLen]), want[packet.VnetLen+packet.EthernetLen:]...)
	packet.VnetHeader(sent).SetCsumStart(40)
	packet.VnetHeader(sent).SetHdrLen(60)
	_, err := far.Write(sent)
	labtest.Must(t, err)
	if got := next(t, frames); !bytes.Equal(got, want) {
		t.Errorf("received % x, expected % x", got[:64], want[:64])
	}
}

func TestNoAllocationsForIPv6(t *testing.T) {
	p := newPair(t)
	port, s := p.uplinkV6(t), p.providerV6(t).Sender()
	expectNoAllocations(t, port, s, packetV6(wanAddrV6, 17, toPort(2000)), superV6(wanAddrV6, packet.ProtoTCP, 60000, 1440, 60))
}
