package wire_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

var (
	ispMAC = [6]byte{0x02, 0, 0, 0, 1, 1}
	wanMAC = [6]byte{0x02, 0, 0, 0, 1, 2}
	secret = wire.GiveBackMAC(1, 3)

	wanAddr = netip.MustParseAddr("100.64.1.2")
	ispAddr = netip.MustParseAddr("100.64.1.1")
)

// pair is an uplink wan1 and the provider's end of it, both silent: no stack answers.
type pair struct {
	gw, isp *lab.Namespace
	link    *lab.Link
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{gw: labtest.Namespace(t, "gw"), isp: labtest.Namespace(t, "isp")}
	var err error
	p.link, err = lab.Connect(lab.End{NS: p.gw, Device: "wan1", Prefix: netip.PrefixFrom(wanAddr, 24), MAC: wanMAC[:]},
		lab.End{NS: p.isp, Device: "cust", Prefix: netip.PrefixFrom(ispAddr, 24), MAC: ispMAC[:]}, 0)
	labtest.Must(t, err)
	labtest.Must(t, p.gw.Silence("wan1", true))
	labtest.Must(t, p.isp.Silence("cust", true))
	return p
}

func openPort(t testing.TB, ns *lab.Namespace, device string, cfg wire.Config) (p *wire.Port) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	cfg.Index, cfg.MTU = index, 1500
	labtest.Must(t, ns.Do(func() (err error) { p, err = wire.Open(cfg); return err }))
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// uplink is the port under test; everything to the pool ports of its address passes.
func (p *pair) uplink(t testing.TB) *wire.Port {
	port := openPort(t, p.gw, "wan1", wire.Config{MAC: wanMAC, GatewayMAC: ispMAC})
	labtest.Must(t, port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{wanAddr}, Ports: []wire.PortRange{{First: 1024, Last: 32767}}, Services: []uint16{53, 51820}, Secret: secret}))
	return port
}

// provider is a port on the other end that sends and sees everything towards the provider's address.
func (p *pair) provider(t testing.TB) *wire.Port {
	port := openPort(t, p.isp, "cust", wire.Config{MAC: ispMAC, GatewayMAC: wanMAC})
	labtest.Must(t, port.SetFilter(wire.FilterConfig{Addresses: []netip.Addr{ispAddr}, Ports: []wire.PortRange{{First: 1, Last: 65535}}}))
	return port
}

// reader copies what a port receives to a channel until the port is closed.
func reader(port *wire.Port) <-chan []byte {
	frames := make(chan []byte, 256)
	go func() {
		defer close(frames)
		bufs, sizes := batchio.Buffers(8), make([]int, 8)
		for {
			n, err := port.ReadBatch(bufs, sizes)
			if err != nil {
				return
			}
			for i := range n {
				frames <- append([]byte(nil), bufs[i][:sizes[i]]...)
			}
		}
	}()
	return frames
}

func next(t testing.TB, frames <-chan []byte) []byte {
	t.Helper()
	select {
	case f, ok := <-frames:
		if !ok {
			t.Fatal("port closed")
		}
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("no frame")
		return nil
	}
}

// frame is a virtio header and the layers, with all lengths and checksums right.
func frame(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...))
	return append(make([]byte, packet.VnetLen), buf.Bytes()...)
}

func ethernet(src, dst [6]byte) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
}

func ipv4(src, dst netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

func udpFrame(t testing.TB, src, dst netip.Addr, port uint16, payload string) []byte {
	ip := ipv4(src, dst, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 40053, DstPort: layers.UDPPort(port)}
	labtest.Must(t, udp.SetNetworkLayerForChecksum(ip))
	return frame(t, ethernet(ispMAC, wanMAC), ip, udp, gopacket.Payload(payload))
}

// superSegment is a TCP segment with n bytes of payload as the kernel hands it over: one IPv4 packet, its checksum only
// seeded, to be cut into segments of size bytes.
func superSegment(t testing.TB, src, dst netip.Addr, n, size int) []byte {
	ip := ipv4(src, dst, layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 2000, Seq: 1, ACK: true, PSH: true, Window: 1000, DataOffset: 5}
	labtest.Must(t, tcp.SetNetworkLayerForChecksum(ip))
	f := frame(t, ethernet(ispMAC, wanMAC), ip, tcp, gopacket.Payload(pattern(n)))
	seedChecksum(f)
	h := packet.VnetHeader(f)
	h[0], h[1] = packet.VnetNeedsCsum, packet.GSOTCPv4
	h.SetHdrLen(54)
	h.SetGSOSize(uint16(size))
	h.SetCsumStart(34)
	h[8] = 16
	return f
}

func seedChecksum(f []byte) {
	ip := f[packet.VnetLen+packet.EthernetLen:]
	word := func(b []byte) uint32 { return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]) }
	sum := packet.Fold(packet.PseudoHeader(packet.IPv4(word(ip[12:])), packet.IPv4(word(ip[16:])), ip[9], len(ip)-20))
	ip[36], ip[37] = byte(sum>>8), byte(sum)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// checkSums recomputes both checksums of a frame with gopacket and compares; it returns the decoded packet.
func checkSums(t testing.TB, eth []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(eth, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%v in % x", e.Error(), eth[:min(len(eth), 60)])
	}
	ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	again := []gopacket.SerializableLayer{p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), ip}
	var had [2]uint16
	had[0] = ip.Checksum
	switch l4 := p.TransportLayer().(type) {
	case *layers.TCP:
		had[1] = l4.Checksum
		labtest.Must(t, l4.SetNetworkLayerForChecksum(ip))
		again = append(again, l4, gopacket.Payload(l4.Payload))
	case *layers.UDP:
		had[1] = l4.Checksum
		labtest.Must(t, l4.SetNetworkLayerForChecksum(ip))
		again = append(again, l4, gopacket.Payload(l4.Payload))
	}
	frame(t, again...)
	now := [2]uint16{ip.Checksum}
	switch l4 := p.TransportLayer().(type) {
	case *layers.TCP:
		now[1] = l4.Checksum
	case *layers.UDP:
		now[1] = l4.Checksum
	}
	if had != now {
		t.Errorf("checksums are %04x, recomputed %04x", had, now)
	}
	return p
}

// rawSocket receives from a device without a virtio header: what really is on the wire.
func rawSocket(t testing.TB, ns *lab.Namespace, device string) (fd int) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300)
		if err != nil {
			return err
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: index})
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}
