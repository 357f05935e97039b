package wire_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

func TestFilterPassesOnlyWhatMayBeOurs(t *testing.T) {
	p := newPair(t)
	frames := reader(p.uplink(t))
	out := p.provider(t).Sender()
	icmp := func(typ uint8, dst netip.Addr) []byte {
		return frame(t, ethernet(ispMAC, wanMAC), ipv4(ispAddr, dst, layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: 5}, gopacket.Payload("ping"))
	}
	fragment := func(flags layers.IPv4Flag, offset uint16) []byte {
		ip := ipv4(ispAddr, wanAddr, layers.IPProtocolUDP)
		ip.Flags, ip.FragOffset = flags, offset
		return frame(t, ethernet(ispMAC, wanMAC), ip, gopacket.Payload("fr\xff\xffment")) // read as ports: 65535, out of range
	}
	other := netip.MustParseAddr("100.64.1.3")
	cases := []struct {
		name  string
		frame []byte
		pass  bool
	}{
		{"udp in range", udpFrame(t, ispAddr, wanAddr, 1024, "x"), true},
		{"udp at the end", udpFrame(t, ispAddr, wanAddr, 32767, "x"), true},
		{"udp below", udpFrame(t, ispAddr, wanAddr, 1023, "x"), false},
		{"udp above", udpFrame(t, ispAddr, wanAddr, 32768, "x"), false},
		{"udp to a service", udpFrame(t, ispAddr, wanAddr, 51820, "x"), true},
		{"tcp to that port", tcpFrame(t, 51820), false},
		{"other address", udpFrame(t, ispAddr, other, 2000, "x"), false},
		{"tcp in range", tcpFrame(t, 2000), true},
		{"tcp below", tcpFrame(t, 22), false},
		{"echo reply", icmp(0, wanAddr), true},
		{"echo request", icmp(8, wanAddr), false},
		{"timestamp reply", icmp(14, wanAddr), true},
		{"unreachable", icmp(3, wanAddr), true},
		{"time exceeded", icmp(11, wanAddr), true},
		{"redirect", icmp(5, wanAddr), false},
		{"error to another", icmp(3, other), false},
		{"first fragment", fragment(layers.IPv4MoreFragments, 0), true},
		{"last fragment", fragment(0, 100), true},
		{"do not fragment", fragment(layers.IPv4DontFragment, 0), false},
		{"other protocol", frame(t, ethernet(ispMAC, wanMAC), ipv4(ispAddr, wanAddr, 47), gopacket.Payload("gre!")), true},
		{"other protocol, no payload", frame(t, ethernet(ispMAC, wanMAC), ipv4(ispAddr, wanAddr, 253)), true},
		{"other protocol, other address", frame(t, ethernet(ispMAC, wanMAC), ipv4(ispAddr, other, 47), gopacket.Payload("gre!")), false},
		{"igmp", frame(t, ethernet(ispMAC, wanMAC), ipv4(ispAddr, wanAddr, 2), gopacket.Payload("igmp")), false},
		{"truncated", frame(t, ethernet(ispMAC, wanMAC), gopacket.Payload("E\x00\x00\x14 truncated frame")), false},
	}
	marker := udpFrame(t, ispAddr, wanAddr, 2001, "marker")
	for _, c := range cases {
		send(t, out, c.frame)
		send(t, out, append([]byte(nil), marker...))
		got := next(t, frames)
		if passed := !bytes.Contains(got, []byte("marker")); passed != c.pass {
			t.Errorf("%s: passed %t", c.name, passed)
		} else if passed {
			if !bytes.Equal(got[24:], c.frame[24:]) {
				t.Errorf("%s: % x became % x", c.name, c.frame, got)
			}
			next(t, frames)
		}
	}
}

func tcpFrame(t testing.TB, port uint16) []byte {
	ip := ipv4(ispAddr, wanAddr, layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: 80, DstPort: layers.TCPPort(port), SYN: true, DataOffset: 5}
	labtest.Must(t, tcp.SetNetworkLayerForChecksum(ip))
	return frame(t, ethernet(ispMAC, wanMAC), ip, tcp)
}

func send(t testing.TB, s *wire.Sender, f []byte) {
	t.Helper()
	s.Queue(f)
	labtest.Must(t, s.Flush())
}

// TestFilterKnowsGivenBackFrames sends from the secret address, as no host on the wire could know it.
func TestFilterKnowsGivenBackFrames(t *testing.T) {
	p := newPair(t)
	frames := reader(p.uplink(t))
	port := openPort(t, p.isp, "cust", wire.Config{MAC: secret, GatewayMAC: wanMAC})
	send(t, port.Sender(), udpFrame(t, ispAddr, wanAddr, 2000, "given back"))
	near := secret
	near[5]++
	port = openPort(t, p.isp, "cust", wire.Config{MAC: near, GatewayMAC: wanMAC})
	send(t, port.Sender(), udpFrame(t, ispAddr, wanAddr, 2000, "another"))
	if got := next(t, frames); !bytes.Contains(got, []byte("another")) {
		t.Errorf("received %q", got)
	}
}

func TestNothingIsReceivedBeforeSetFilter(t *testing.T) {
	p := newPair(t)
	port := openPort(t, p.gw, "wan1", wire.Config{MAC: wanMAC, GatewayMAC: ispMAC})
	out := p.provider(t).Sender()
	send(t, out, udpFrame(t, ispAddr, wanAddr, 2000, "early"))
	labtest.Must(t, port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Ports: []wire.PortRange{{First: 2000, Last: 2000}}}))
	send(t, out, udpFrame(t, ispAddr, wanAddr, 2000, "late"))
	if got := next(t, reader(port)); !bytes.Contains(got, []byte("late")) {
		t.Errorf("received %q", got)
	}
}

// TestFilterOfWholeAddresses: all that is sent to an inside host's own address is received.
func TestFilterOfWholeAddresses(t *testing.T) {
	p := newPair(t)
	port := p.uplink(t)
	labtest.Must(t, port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Whole: []netip.Addr{wanAddr}}))
	out, frames := p.provider(t).Sender(), reader(port)
	other := udpFrame(t, ispAddr, wanAddr, 2000, "of another protocol")
	other[packet.VnetLen+packet.EthernetLen+9] = 132
	for _, f := range [][]byte{udpFrame(t, ispAddr, wanAddr, 22, "of any port"), other} {
		send(t, out, f)
		if got := next(t, frames); !bytes.Equal(got[packet.VnetLen+packet.EthernetLen:], f[packet.VnetLen+packet.EthernetLen:]) {
			t.Errorf("received %q", got)
		}
	}
}

func TestFilterBounds(t *testing.T) {
	p := newPair(t)
	port := p.uplink(t)
	large := wire.FilterConfig{Addresses: make([]netip.Addr, wire.MaxFilterAddresses), Ports: make([]wire.PortRange, wire.MaxFilterPorts)}
	for i := range large.Addresses {
		large.Addresses[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	large.Addresses[0] = wanAddr
	large.Ports[wire.MaxFilterPorts-1] = wire.PortRange{First: 2000, Last: 2000}
	large.Services = make([]uint16, wire.MaxFilterServices)
	large.Services[wire.MaxFilterServices-1] = 3000
	labtest.Must(t, port.SetFilter(large))
	out, frames := p.provider(t).Sender(), reader(port)
	for _, to := range []uint16{2000, 3000} {
		send(t, out, udpFrame(t, ispAddr, wanAddr, to, "x"))
		next(t, frames)
	}
	for _, grow := range []func(*wire.FilterConfig){
		func(c *wire.FilterConfig) { c.Addresses = append(c.Addresses, wanAddr) },
		func(c *wire.FilterConfig) { c.Ports = append(c.Ports, wire.PortRange{}) },
		func(c *wire.FilterConfig) { c.Services = append(c.Services, 1) },
	} {
		c := large
		grow(&c)
		if err := port.SetFilter(c); !errors.Is(err, wire.ErrFilter) {
			t.Errorf("%d addresses, %d ranges, %d services: %v", len(c.Addresses), len(c.Ports), len(c.Services), err)
		}
	}
}

// TestSuperSegmentIsCutToTheMTU sends one 60 kB frame and collects the segments a device without offloads puts on the wire.
func TestSuperSegmentIsCutToTheMTU(t *testing.T) {
	const length = 60000
	for _, mtu := range []int{1500, 1000, 576} {
		p := newPair(t)
		labtest.Must(t, p.gw.SetOffloads("wan1", lab.Offloads{RxChecksum: true, GRO: true}))
		port, fd := p.uplink(t), rawSocket(t, p.isp, "cust")
		port.SetNextHop(ispMAC, ispMAC, mtu)
		send(t, port.Sender(), superSegment(t, wanAddr, ispAddr, length, 1460))
		if got := collect(t, fd, mtu, length); !bytes.Equal(got, pattern(length)) {
			t.Errorf("MTU %d: payload differs", mtu)
		}
		if s := port.Stats(); s.Sent != 1 || s.SentBytes != length+54 {
			t.Errorf("stats %+v", s)
		}
	}
}

// collect reads TCP segments from a raw socket until n bytes of payload have come, and checks each.
func collect(t *testing.T, fd, mtu, n int) (payload []byte) {
	buf := make([]byte, 1<<16)
	for len(payload) < n {
		r, err := unix.Read(fd, buf)
		labtest.Must(t, err)
		p := gopacket.NewPacket(buf[:r], layers.LayerTypeEthernet, gopacket.Default)
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok {
			continue
		}
		if r > mtu+14 {
			t.Fatalf("segment of %d bytes, MTU %d", r, mtu)
		}
		checkSums(t, buf[:r])
		if int(tcp.Seq) != len(payload)+1 {
			t.Fatalf("segment at %d, expected %d", tcp.Seq, len(payload)+1)
		}
		payload = append(payload, tcp.Payload...)
	}
	return payload
}

// TestSuperSegmentPassesWhole: over a device with offloads the frame arrives as it was sent, unfinished checksum included.
func TestSuperSegmentPassesWhole(t *testing.T) {
	p := newPair(t)
	frames := reader(p.uplink(t))
	sent := superSegment(t, ispAddr, wanAddr, 60000, 1460)
	send(t, p.provider(t).Sender(), sent)
	if got := next(t, frames); !bytes.Equal(got, sent) {
		t.Errorf("virtio header % x became % x; %d bytes became %d", sent[:10], got[:10], len(sent), len(got))
	}
}

func TestTooBigIsCounted(t *testing.T) {
	port := newPair(t).uplink(t)
	s := port.Sender()
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, string(make([]byte, 2000))))
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "small"))
	s.Queue([]byte("scrap"))
	labtest.Must(t, s.Flush())
	if got := port.Stats(); got.Sent != 1 || got.DroppedTooBig != 1 || got.DroppedRefused != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestNextHopChangesWhileRunning(t *testing.T) {
	p := newPair(t)
	port, fd := p.uplink(t), rawSocket(t, p.isp, "cust")
	s := port.Sender()
	for _, mac := range [][6]byte{ispMAC, {2, 2, 2, 2, 2, 2}} {
		port.SetNextHop(mac, ispMAC, 1500)
		send(t, s, udpFrame(t, wanAddr, ispAddr, 2000, "hop"))
		buf := make([]byte, 2000)
		for {
			n, err := unix.Read(fd, buf)
			labtest.Must(t, err)
			if !bytes.Contains(buf[:n], []byte("hop")) {
				continue
			}
			if !bytes.Equal(buf[:6], mac[:]) || !bytes.Equal(buf[6:12], wanMAC[:]) {
				t.Errorf("sent from % x to % x", buf[6:12], buf[:6])
			}
			break
		}
	}
}

func TestDeviceDownAndGone(t *testing.T) {
	p := newPair(t)
	port := p.uplink(t)
	link, err := p.gw.Handle().LinkByName("wan1")
	labtest.Must(t, err)
	result := make(chan error)
	go func() {
		bufs, sizes := batchio.Buffers(1), make([]int, 1)
		for range 2 {
			_, err := port.ReadBatch(bufs, sizes)
			result <- err
		}
	}()
	labtest.Must(t, p.gw.Handle().LinkSetDown(link))
	if err := labtest.Ended(t, result); !errors.Is(err, wire.ErrDown) {
		t.Errorf("reading while down: %v", err)
	}
	s := port.Sender()
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "x"))
	if err := s.Flush(); !errors.Is(err, wire.ErrDown) {
		t.Errorf("sending while down: %v", err)
	}
	labtest.Must(t, p.gw.Handle().LinkSetUp(link))
	send(t, p.provider(t).Sender(), udpFrame(t, ispAddr, wanAddr, 2000, "x"))
	if err := labtest.Ended(t, result); err != nil {
		t.Errorf("after the device came back: %v", err)
	}
	labtest.Must(t, p.link.Unplug())
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "x"))
	if err := s.Flush(); !errors.Is(err, wire.ErrDown) {
		t.Errorf("sending on a device that is gone: %v", err)
	}
	labtest.Must(t, p.gw.Do(func() error {
		if _, err := wire.Open(wire.Config{Index: link.Attrs().Index}); !errors.Is(err, wire.ErrDown) {
			t.Errorf("opening a device that is gone: %v", err)
		}
		return nil
	}))
	if got := port.Stats(); got.DroppedDown != 2 {
		t.Errorf("stats %+v", got)
	}
}

func TestCloseUnblocks(t *testing.T) {
	port := newPair(t).uplink(t)
	result := make(chan error)
	go func() {
		_, err := port.ReadBatch(batchio.Buffers(1), make([]int, 1))
		result <- err
	}()
	labtest.Must(t, port.Close())
	labtest.Must(t, port.Close())
	if err := labtest.Ended(t, result); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch: %v", err)
	}
	s := port.Sender()
	s.Queue(udpFrame(t, wanAddr, ispAddr, 2000, "x"))
	if err := s.Flush(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Flush: %v", err)
	}
	if err := port.SetFilter(wire.FilterConfig{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("SetFilter: %v", err)
	}
	port.Stats()
}

func TestNoAllocations(t *testing.T) {
	p := newPair(t)
	port, s := p.uplink(t), p.provider(t).Sender()
	expectNoAllocations(t, port, s, udpFrame(t, ispAddr, wanAddr, 2000, "x"), superSegment(t, ispAddr, wanAddr, 60000, 1460))
}

// expectNoAllocations sends two frames again and again, and receives them.
func expectNoAllocations(t *testing.T, port *wire.Port, s *wire.Sender, small, large []byte) {
	t.Helper()
	bufs, sizes := batchio.Buffers(4), make([]int, 4)
	n := testing.AllocsPerRun(200, func() {
		s.Queue(small)
		s.Queue(large)
		if s.Flush() != nil {
			t.Error("flush failed")
		}
		if _, err := port.ReadBatch(bufs, sizes); err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
}
