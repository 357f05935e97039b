package lab_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestCaptureVerifiesRealTraffic(t *testing.T) {
	for name, tc := range map[string]struct {
		offloads *lab.Offloads
		uplink   lab.UplinkOptions
		raw      bool // expect neither super-packets nor partial checksums
	}{
		"defaults":    {},
		"no offloads": {offloads: &lab.Offloads{}, raw: true},
		"tun":         {uplink: lab.UplinkOptions{HeaderLess: true}, raw: true},
	} {
		t.Run(name, func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Offloads: tc.offloads, Uplinks: []lab.UplinkOptions{tc.uplink}})
			u := topo.Uplinks[0]
			near, err := topo.Gateway.StartCapture(u.Device, nil)
			labtest.Must(t, err)
			transferAll(t, topo.Hosts[0].Namespace)
			expectPing(t, topo.Hosts[0].Namespace, server, true)
			askEcho(t, topo.Hosts[0].Namespace)
			r, err := near.Stop()
			labtest.Must(t, err)
			t.Logf("%d packets, %d partial, %d super, %d fragments", r.Packets, r.Partial, r.Super, r.Fragments)
			expectGood(t, r)
			if r.TCP < 100 || r.UDP < 2 || r.ICMP < 2 || r.Fragments < 2 {
				t.Errorf("missed packets: %+v", r)
			}
			if plain := r.Partial == 0 && r.Super == 0; plain != tc.raw {
				t.Errorf("%d partial checksums and %d super-packets", r.Partial, r.Super)
			}
		})
	}
}

// askEcho exchanges a small datagram and one of several fragments.
func askEcho(t *testing.T, n *lab.Namespace) {
	t.Helper()
	conn, err := n.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer conn.Close()
	for _, size := range []int{10, 4000} {
		_, err := lab.AskUDP(labtest.Context(t), conn, server, strings.Repeat("x", size))
		labtest.Must(t, err)
	}
}

func expectGood(t *testing.T, r lab.Report) {
	t.Helper()
	for _, p := range r.BadOnes {
		t.Errorf("bad: %s", p)
	}
	if r.Bad != 0 || r.Lost != 0 {
		t.Errorf("%d bad, %d lost", r.Bad, r.Lost)
	}
}

func TestCaptureFindsWhatIsWrong(t *testing.T) {
	const ip, l4 = 14, 34 // offsets of the headers
	quoted := frame(t, layers.IPProtocolUDP)[ip:]
	for name, tc := range map[string]struct {
		frame  []byte
		damage func([]byte)
		want   string // in Packet.Problem
	}{
		"good TCP":          {frame(t, layers.IPProtocolTCP), func([]byte) {}, ""},
		"good UDP":          {frame(t, layers.IPProtocolUDP), func([]byte) {}, ""},
		"good ICMP":         {icmpFrame(t, layers.ICMPv4TypeEchoRequest, []byte("hello")), func([]byte) {}, ""},
		"good ICMP error":   {icmpFrame(t, layers.ICMPv4TypeTimeExceeded, quoted), func([]byte) {}, ""},
		"no UDP checksum":   {frame(t, layers.IPProtocolUDP), func(b []byte) { b[l4+6], b[l4+7] = 0, 0 }, ""},
		"TTL changed":       {frame(t, layers.IPProtocolTCP), func(b []byte) { b[ip+8]-- }, "IPv4 header checksum"},
		"TCP port changed":  {frame(t, layers.IPProtocolTCP), func(b []byte) { b[l4]++ }, "wrong transport"},
		"UDP data changed":  {frame(t, layers.IPProtocolUDP), func(b []byte) { b[l4+8]++ }, "wrong transport"},
		"UDP length":        {frame(t, layers.IPProtocolUDP), func(b []byte) { b[l4+5]-- }, "UDP length"},
		"ICMP id changed":   {icmpFrame(t, layers.ICMPv4TypeEchoReply, nil), func(b []byte) { b[l4+4]++ }, "wrong ICMP"},
		"quote changed":     {icmpFrame(t, layers.ICMPv4TypeTimeExceeded, quoted), damageQuote, "quoted packet"},
		"TCP header length": {frame(t, layers.IPProtocolTCP), func(b []byte) { b[l4+12] = 0xf0 }, "malformed"},
		"IP version":        {frame(t, layers.IPProtocolTCP), func(b []byte) { b[ip] = 0x44 }, "malformed"},
		"truncated":         {frame(t, layers.IPProtocolTCP)[:40], func([]byte) {}, "IPv4 length"},
	} {
		t.Run(name, func(t *testing.T) {
			p := passThrough(t, tc.frame, tc.damage)
			if tc.want == "" && p.Problem != "" || !strings.Contains(p.Problem, tc.want) {
				t.Errorf("problem %q, want %q in it", p.Problem, tc.want)
			}
		})
	}
}

// damageQuote changes the quoted header and mends the ICMP checksum around it, as a careless NAT does.
func damageQuote(b []byte) {
	const checksum, quotedID = 34 + 2, 34 + 8 + 4
	b[quotedID] ^= 1 // the high byte of a word, as b[checksum] is
	sum := uint16(^b[checksum])<<8 | uint16(^b[checksum+1])
	next := uint32(sum) + 0x100
	if b[quotedID]&1 == 0 {
		next = uint32(sum) + 0xffff - 0x100
	}
	next = next&0xffff + next>>16
	b[checksum], b[checksum+1] = ^byte(next>>8), ^byte(next)
}

// passThrough sends a damaged frame over a cable and returns what the capture at its other end says.
func passThrough(t *testing.T, b []byte, damage func([]byte)) *lab.Packet {
	t.Helper()
	a, z := labtest.Namespace(t, "a"), labtest.Namespace(t, "z")
	_, err := lab.Connect(lab.End{NS: a, Device: "e"}, lab.End{NS: z, Device: "e"}, 0)
	labtest.Must(t, err)
	b = append([]byte(nil), b...)
	damage(b)
	c, err := z.StartCapture("e", nil)
	labtest.Must(t, err)
	isOurs := func(p *lab.Packet) bool { return !p.Outgoing && len(p.Data) == len(b) && p.Data[11] == 0xee }
	p, err := c.AwaitAfter(labtest.Context(t), isOurs, func() error { return inject(a, "e", b) })
	labtest.Must(t, err)
	_, err = c.Stop()
	labtest.Must(t, err)
	return p
}

func inject(n *lab.Namespace, device string, b []byte) error { return send(n, device, b, 0) }

// injectVirtio is inject for a frame behind a virtio header.
func injectVirtio(n *lab.Namespace, device string, b []byte) error { return send(n, device, b, 1) }

func send(n *lab.Namespace, device string, b []byte, virtio int) error {
	index, err := n.Index(device)
	if err != nil {
		return err
	}
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, virtio); err != nil {
			return err
		}
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: index, Protocol: 0x0008})
	})
}

func frame(t *testing.T, proto layers.IPProtocol) []byte {
	t.Helper()
	ip := header(proto)
	var l4 gopacket.SerializableLayer
	if proto == layers.IPProtocolTCP {
		tcp := &layers.TCP{SrcPort: 1234, DstPort: 80, SYN: true, Window: 1000}
		labtest.Must(t, tcp.SetNetworkLayerForChecksum(ip))
		l4 = tcp
	} else {
		udp := &layers.UDP{SrcPort: 1234, DstPort: 53}
		labtest.Must(t, udp.SetNetworkLayerForChecksum(ip))
		l4 = udp
	}
	return serialize(t, ip, l4, gopacket.Payload("payload of odd len"))
}

func icmpFrame(t *testing.T, kind uint8, payload []byte) []byte {
	t.Helper()
	message := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)}
	return serialize(t, header(layers.IPProtocolICMPv4), message, gopacket.Payload(payload))
}

func header(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: proto,
		SrcIP: net.IP(netip.MustParseAddr("192.0.2.1").AsSlice()), DstIP: net.IP(netip.MustParseAddr("192.0.2.2").AsSlice())}
}

func serialize(t *testing.T, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xee}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xdd},
		EthernetType: layers.EthernetTypeIPv4}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	labtest.Must(t, gopacket.SerializeLayers(buf, opts, append([]gopacket.SerializableLayer{eth}, l...)...))
	return buf.Bytes()
}

func TestCaptureFindsABadPartialChecksum(t *testing.T) {
	topo := labtest.Build(t, lab.Options{})
	b := append(make([]byte, 10), frame(t, layers.IPProtocolUDP)...)
	b[0], b[6], b[8] = 1, 34, 6 // VIRTIO_NET_HDR_F_NEEDS_CSUM, csum_start, csum_offset; the field keeps the full sum
	c, err := topo.Gateway.StartCapture("wan1", nil)
	labtest.Must(t, err)
	p, err := c.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.Partial }, func() error {
		return injectVirtio(topo.Uplinks[0].ISP, lab.DeviceCustomer, b)
	})
	labtest.Must(t, err)
	if !strings.Contains(p.Problem, "partial transport checksum") {
		t.Errorf("problem %q", p.Problem)
	}
	_, err = c.Stop()
	labtest.Must(t, err)
}

func TestCaptureKeepsOnRequest(t *testing.T) {
	topo := masqueraded(t, lab.Options{})
	c, err := topo.Gateway.StartCapture("wan1", toServer)
	labtest.Must(t, err)
	sendUDP(t, topo.Hosts[0].Namespace, server, 5)
	expectPing(t, topo.Hosts[0].Namespace, server, true)
	r, err := c.Stop()
	labtest.Must(t, err)
	if len(r.Kept) != 5 {
		t.Fatalf("kept %d packets, want 5", len(r.Kept))
	}
	for _, p := range r.Kept {
		if string(p.Payload) != "one way" || p.Src.Addr() != topo.Uplinks[0].Addr() {
			t.Errorf("kept %s with %q", p, p.Payload)
		}
	}
	if _, err := c.Stop(); err != nil {
		t.Errorf("second stop: %v", err)
	}
}
