package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// marker is the payload of packets that must not get through.
var marker = []byte("must not get through")

func marked(p *lab.Packet) bool { return bytes.Contains(p.Data, marker) }

// TestOpenRelay: a neighbour on a provider's segment gets nothing forwarded, neither to the Internet nor to the LAN, also
// where the user has switched forwarding on; then the way into the LAN is the user's own choice.
func TestOpenRelay(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]bool{"forwarding by us": false, "forwarding by the user": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology := labtest.Build(t, lab.Options{})
			labtest.Servers(t, topology)
			if user {
				labtest.Must(t, topology.Gateway.Sysctl("net/ipv4/ip_forward", "1"))
			}
			g := start(t, topology.Gateway, inTurn)
			g.awaitUp(topology)
			w := world{g, topology, topology.Hosts[0].Namespace, nil}
			w.meetLAN()
			testOpenRelay(t, w, user)
		})
	}
}

func testOpenRelay(t *testing.T, w world, user bool) {
	for _, device := range []string{"wan1", "wan2", "tapgw0"} {
		watch(t, w.Gateway, device, "relayed", func(p *lab.Packet) bool {
			return p.Outgoing && marked(p) && (p.IP != nil && p.IP.Id == foreignID || p.V6 != nil && p.V6.FlowLabel == foreignID)
		})
	}
	inside, err := w.Gateway.StartCapture(lab.DeviceLAN, func(p *lab.Packet) bool { return p.Outgoing && marked(p) })
	labtest.Must(t, err)
	first := w.Uplinks[0]
	link := ethernet(first.Link.Far.MAC, first.Link.Near.MAC)
	sources := []string{first.NextHop().String(), "100.64.1.77", "192.0.2.99", w.Hosts[0].Addr.String(), w.Uplinks[1].Addr().String()}
	for _, from := range sources {
		for _, to := range []netip.Addr{lab.ServerAddrs[0], w.Hosts[0].Addr} {
			for _, transport := range transports(marker) {
				inject(t, first.ISP, lab.DeviceCustomer, frame(t, link, ip4(netip.MustParseAddr(from), to), transport...))
			}
		}
	}
	// What comes after them has passed all of them.
	_, err = first.ISP.Ping(labtest.Context(t), first.Addr())
	labtest.Must(t, err)
	online(t, w.lan)
	online(t, w.Gateway)
	report, err := inside.Stop()
	labtest.Must(t, err)
	if toLAN := len(report.Kept); toLAN > 0 != user {
		t.Errorf("%d packets were forwarded into the LAN", toLAN)
	}
}

// The Ethernet addresses of the TAP and of the imaginary router behind it.
var (
	tapMAC    = net.HardwareAddr{2, 'T', 'A', 'P', 'G', 1}
	routerMAC = net.HardwareAddr{2, 'T', 'A', 'P', 'G', 0xfe}
)

// foreignID is the IP identification of the packets made here: an answer to one quotes the payload but has another.
const foreignID = 4711

// transports is one first packet of each kind with a payload, and what connection tracking calls invalid.
func transports(payload []byte) [][]gopacket.SerializableLayer {
	return [][]gopacket.SerializableLayer{
		{&layers.TCP{SrcPort: 4001, DstPort: 7001, SYN: true, FIN: true, RST: true}, gopacket.Payload(payload)},
		{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(0, 0), Id: 2, Seq: 1}, gopacket.Payload(payload)},
		{&layers.UDP{SrcPort: 4000, DstPort: 7002}, gopacket.Payload(payload)},
		{&layers.TCP{SrcPort: 4000, DstPort: 7001, SYN: true, Window: 1000}, gopacket.Payload(payload)},
		{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1, Seq: 1}, gopacket.Payload(payload)},
	}
}

func ethernet(src, dst net.HardwareAddr) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}
}

func ip4(src, dst netip.Addr) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: foreignID, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// frame puts headers before a transport layer and its payload, with right lengths and checksums.
func frame(t testing.TB, link gopacket.SerializableLayer, ip *layers.IPv4, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	switch transport := body[0].(type) {
	case *layers.UDP:
		ip.Protocol = layers.IPProtocolUDP
		labtest.Must(t, transport.SetNetworkLayerForChecksum(ip))
	case *layers.TCP:
		ip.Protocol = layers.IPProtocolTCP
		labtest.Must(t, transport.SetNetworkLayerForChecksum(ip))
	case *layers.ICMPv4:
		ip.Protocol = layers.IPProtocolICMPv4
	}
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{link, ip}, body...)...))
	return bytes.Clone(buf.Bytes())
}

// inject puts frames on a wire as they are. What the kernel refuses to send is skipped: shorter than a header, longer than
// the wire takes, or no room at the moment.
func inject(t testing.TB, ns *lab.Namespace, device string, frames ...[]byte) {
	t.Helper()
	index, err := ns.Index(device)
	labtest.Must(t, err)
	labtest.Must(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index})
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("send %d bytes by %s: %w", len(f), device, err)
			}
		}
		return nil
	}))
}

// TestHostileFrames is fault 66: whatever comes from the LAN, from the provider and out of the TAP, the daemon lives, sends
// nothing malformed and nothing that is not its own, and everybody goes on.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	testHostile(t, begin(t, lab.Options{}, inTurn), hostile)
}

// testHostile has three sides send frames from and to MAC addresses and endpoints, as wrong makes them; sessions go on, and nothing
// malformed leaves, or with a foreign source.
func testHostile(t *testing.T, w world, wrong func(t testing.TB, macs [2]net.HardwareAddr, src, dst netip.AddrPort) [][]byte) {
	server := w.family.servers[0]
	conns := dialAllTo(t, w.lan, netip.AddrPortFrom(server, lab.PortTCPEcho), 10)
	for _, u := range w.Uplinks {
		foreign := hasForeignSource(u)
		expectNone(t, w.Gateway, u.Device, func(p *lab.Packet) bool {
			malformed := p.IP == nil && p.V6 == nil && contains(p.Problem, "malformed")
			return p.Outgoing && malformed || foreign(p)
		})
	}
	mapped := conns[0].LocalAddr().(*net.TCPAddr).AddrPort().Port()
	s, ok := w.session("tcp", mapped)
	if !ok {
		t.Fatal("a session is not listed")
	}
	first, host := w.Uplinks[0], w.family.host(w.Hosts[0])
	lan := [2]net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 0xaa}}
	tap := [2]net.HardwareAddr{tapMAC, routerMAC}
	wan := [2]net.HardwareAddr{first.Link.Far.MAC, first.Link.Near.MAC}
	for i, c := range []struct {
		ns     *lab.Namespace
		device string
		frames [][]byte
	}{
		{w.lan, lab.DeviceHost, wrong(t, lan, netip.AddrPortFrom(host, mapped), netip.AddrPortFrom(server, lab.PortTCPEcho))},
		{first.ISP, lab.DeviceCustomer, wrong(t, wan, netip.AddrPortFrom(server, lab.PortTCPEcho), netip.AddrPortFrom(w.family.own(first), s.Outside.Port()))},
		{w.Gateway, "tapgw0", wrong(t, tap, netip.AddrPortFrom(host, mapped), netip.AddrPortFrom(server, lab.PortTCPEcho))},
	} {
		t.Logf("%d frames by %s", len(c.frames), c.device)
		for batch := range chunks(c.frames, 200) {
			inject(t, c.ns, c.device, batch...)
		}
		for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
			_, err := ns.WhoAmI(labtest.Context(t), server)
			labtest.Must(t, err)
		}
		for j, conn := range conns[1:] { // the first one was attacked
			if err := echo(conn, "still here"); err != nil {
				t.Errorf("after attack %d, session %d: %v", i, j, err)
			}
		}
	}
	if n := len(w.status().Uplinks); n != 2 {
		t.Errorf("%d uplinks", n)
	}
}

// chunks yields list in pieces of at most n.
func chunks(list [][]byte, n int) func(func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		for len(list) > 0 {
			k := min(n, len(list))
			if !yield(list[:k]) {
				return
			}
			list = list[k:]
		}
	}
}

// hostile is frames from and to the MAC addresses: everything that is wrong on purpose, and some thousand by chance.
func hostile(t testing.TB, macs [2]net.HardwareAddr, src, dst netip.AddrPort) (frames [][]byte) {
	link := ethernet(macs[0], macs[1])
	udp := frame(t, link, ip4(src.Addr(), dst.Addr()), &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(marker))
	tcp := frame(t, link, ip4(src.Addr(), dst.Addr()), &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), SYN: true}, gopacket.Payload(marker))
	quoting := frame(t, link, ip4(src.Addr(), dst.Addr()), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(tcp[14:42]))
	change := func(b []byte, at int, value byte) []byte {
		b = bytes.Clone(b)
		b[at] = value
		fixHeader(b)
		return b
	}
	for _, base := range [][]byte{udp, tcp, quoting} {
		for n := range base { // runts
			frames = append(frames, base[:n])
		}
		for at := 14; at < 42; at++ { // header lengths, versions, total lengths, protocols, data offsets, flags
			for _, v := range []byte{0x00, 0x01, 0x40, 0x44, 0x4f, 0x60, 0x7f, 0xff} {
				frames = append(frames, change(base, at, v))
			}
		}
		for n := 1; n <= 20; n++ { // trailers
			frames = append(frames, append(bytes.Clone(base), make([]byte, n)...))
		}
		tag := []byte{0x81, 0, 0, 5}
		frames = append(frames, tagged(base, tag), tagged(tagged(base, tag), tag), tagged(base, []byte{0x88, 0xa8, 0, 5}))
		for _, options := range [][]byte{{131, 7, 4, 192, 0, 2, 1, 0}, {137, 11, 4, 192, 0, 2, 1, 192, 0, 2, 2, 0}, {7, 3, 4, 0},
			{7, 0, 0, 0}, {68, 255, 255, 255}, bytes.Repeat([]byte{1}, 40)} {
			frames = append(frames, withOptions(base, options))
		}
		frames = append(frames, append(bytes.Clone(base), make([]byte, 1514-len(base))...))
	}
	frames = append(frames, malformedARP(macs)...)
	return append(frames, randomFrames(macs, [][]byte{udp, tcp, quoting})...)
}

// fixHeader makes the header checksum right again, so that the kernel does not drop the frame for that.
func fixHeader(b []byte) {
	n := int(b[14]&15) * 4
	if n < 20 || len(b) < 14+n {
		return
	}
	b[24], b[25] = 0, 0
	sum := uint32(0)
	for i := 14; i < 14+n; i += 2 {
		sum += uint32(be16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	copy(b[24:], bytes16(^uint16(sum)))
}

// tagged inserts a VLAN tag.
func tagged(b, tag []byte) []byte { return append(append(bytes.Clone(b[:12]), tag...), b[12:]...) }

// withOptions inserts IP options, a multiple of four bytes.
func withOptions(b, options []byte) []byte {
	out := append(append(bytes.Clone(b[:34]), options...), b[34:]...)
	out[14] += byte(len(options) / 4)
	copy(out[16:], bytes16(be16(b[16:])+uint16(len(options))))
	fixHeader(out)
	return out
}

func malformedARP(macs [2]net.HardwareAddr) (frames [][]byte) {
	base := append(append(append([]byte{}, macs[1]...), macs[0]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	base = append(base, make([]byte, 20)...)
	for n := 14; n < len(base); n++ {
		frames = append(frames, base[:n])
	}
	for at := 14; at < 22; at++ {
		b := bytes.Clone(base)
		b[at] = 0xff
		frames = append(frames, b)
	}
	return frames
}

// randomFrames is noise, and the given frames with some bytes changed.
func randomFrames(macs [2]net.HardwareAddr, bases [][]byte) (frames [][]byte) {
	rng := rand.NewChaCha8([32]byte{66})
	random := rand.New(rng)
	for i := range 1500 {
		var b []byte
		if i%3 == 0 {
			b = append(append(append(b, macs[1]...), macs[0]...), 8, 0)
			noise := make([]byte, random.IntN(200))
			_, _ = rng.Read(noise) // documented never to fail
			b = append(b, noise...)
		} else {
			b = bytes.Clone(bases[i%len(bases)])
			for range 1 + random.IntN(4) {
				b[14+random.IntN(len(b)-14)] = byte(random.Uint32())
			}
			fixHeader(b)
		}
		frames = append(frames, b)
	}
	return frames
}

// TestTrailersTagsAndOptions: an Ethernet trailer is no payload, a tagged frame is none of the untagged link's, and IP
// options pass.
func TestTrailersTagsAndOptions(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	for _, u := range w.Uplinks {
		expectNone(t, w.Gateway, u.Device, func(p *lab.Packet) bool { return p.Outgoing && p.Problem != "" })
	}
	inside := netip.AddrPortFrom(w.Hosts[0].Addr, 5555)
	conn, err := listenUDP(w.lan, inside)
	labtest.Must(t, err)
	defer conn.Close()
	server := netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortUDPEcho)
	outside, err := lab.AskUDP(labtest.Context(t), conn, server.Addr(), "open")
	labtest.Must(t, err)

	trailer := []byte("a trailer of odd length")
	lan := ethernet(net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 0xaa})
	inject(t, w.lan, lab.DeviceHost, append(datagram(t, lan, inside, server, "out"), trailer...))
	expectDatagram(t, conn, server, outside.String()+" out")

	u := w.Uplinks[0]
	if outside.Addr() != u.Addr() {
		u = w.Uplinks[1]
	}
	wan := ethernet(u.Link.Far.MAC, u.Link.Near.MAC)
	inject(t, u.ISP, lab.DeviceCustomer,
		tagged(datagram(t, wan, server, outside, "of a VLAN"), []byte{0x81, 0, 0, 5}),
		append(datagram(t, wan, server, outside, "in"), trailer...),
		withOptions(datagram(t, wan, server, outside, "with options"), []byte{7, 7, 4, 0, 0, 0, 0, 0}))
	expectDatagram(t, conn, server, "in")
	expectDatagram(t, conn, server, "with options")

	setOptions(t, conn.(*net.UDPConn), "\x07\x0b\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	seen, err := lab.AskUDP(labtest.Context(t), conn, server.Addr(), "with options")
	if err != nil || seen != outside {
		t.Errorf("a datagram with options came from %s, not %s (%v)", seen, outside, err)
	}
}

// expectNone fails the test at its end where a packet that must not pass a device did.
func expectNone(t testing.TB, ns *lab.Namespace, device string, bad func(*lab.Packet) bool) {
	t.Helper()
	c, err := ns.StartCapture(device, bad)
	labtest.Must(t, err)
	t.Cleanup(func() {
		report, err := c.Stop()
		labtest.Must(t, err)
		for _, p := range report.Kept {
			t.Errorf("%s sent %s", device, p)
		}
	})
}

// datagram is a frame with a UDP payload.
func datagram(t testing.TB, link *layers.Ethernet, src, dst netip.AddrPort, payload string) []byte {
	t.Helper()
	return frame(t, link, ip4(src.Addr(), dst.Addr()),
		&layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(payload))
}

// expectDatagram waits for a datagram.
func expectDatagram(t testing.TB, conn net.PacketConn, from netip.AddrPort, want string) {
	t.Helper()
	buf := make([]byte, 2000)
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	n, source, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != want || source.String() != from.String() {
		t.Errorf("received %q from %v, %v; want %q", buf[:n], source, err, want)
	}
}

// setOptions gives every datagram that a socket sends IP options.
func setOptions(t testing.TB, conn *net.UDPConn, options string) {
	t.Helper()
	labtest.Must(t, onSocket(conn, func(fd int) error { return unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, options) }))
}
