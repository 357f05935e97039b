package tapgw

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Addresses of the tests.
var (
	inside = packet.IPv4(0x0a000002) // 10.0.0.2
	other  = packet.IPv4(0x0a000003)
	tapIP  = packet.IPv4(0xc6124901) // 198.18.73.1
	wan1   = packet.IPv4(0x64400102) // 100.64.1.2, of uplink 1
	wan2   = packet.IPv4(0x64400202)
	server = packet.IPv4(0xcb007101) // 203.0.113.1
	router = packet.IPv4(0xc6336401) // 198.51.100.1, on the way to it
)

const start = nat.Tick(1<<32 - 20) // close to where ticks wrap

var (
	tapMAC     = [6]byte{2, 0x54, 0x41, 0x50, 0x47, 1}
	gatewayMAC = [6]byte{2, 0x54, 0x41, 0x50, 0x47, 0xfe}
	gatewayIP  = netip.AddrFrom4([4]byte{198, 18, 73, 2})
	strangeMAC = [6]byte{2, 9, 9, 9, 9, 9}
)

// world is a gateway with two uplinks.
type world struct {
	t     testing.TB
	g     *Gateway
	table *nat.Table
	ups   [2]uplinks.Uplink // what publish publishes
	held  bool              // a socket of the host has the port

	settle func() // what the uplinks received is handled here
}

func newWorld(t testing.TB, change ...func(*nat.Config)) *world {
	t.Helper()
	c := nat.Config{
		MaxSessions: 4096, Ports: []nat.PortRange{{First: 1024, Last: 65535}}, ShareTCP: true, Timeouts: nat.DefaultTimeouts,
		Seed: [2]uint64{1, 2}, Random: rand.New(rand.NewPCG(1, 2)).Uint64,
	}
	for _, f := range change {
		f(&c)
	}
	table, err := nat.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, table: table, settle: func() {}}
	meters, demand := new(Meters), uplinks.NewDemand()
	for i := range meters {
		meters[i] = uplinks.NewMeter(demand)
	}
	w.g = New(Config{
		TAPMAC: tapMAC, GatewayMAC: gatewayMAC, GatewayIP: gatewayIP, TAPIP: tapIP.Netip(),
		Held:   func(uint8, packet.Addr, uint16) bool { return w.held },
		Settle: func() { w.settle() },
	}, table, meters)
	must(t, w.g.SetPlan(policy.NewPlan("failover")))
	for i, a := range []packet.Addr{wan1, wan2} {
		w.ups[i] = uplinks.Uplink{
			ID: uint8(i + 1), Name: fmt.Sprint("wan", i+1), Index: i + 10, MTU: 1500, Weight: 1, Tier: i,
			Side: uplinks.Side{State: uplinks.Up, Addresses: []netip.Addr{a.Netip()}, GatewayMAC: [6]byte{2, 1}, Generation: 1},
		}
	}
	w.publish()
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// publish makes the gateway see the uplinks as they are now.
func (w *world) publish() {
	var list []*uplinks.Uplink
	for _, u := range w.ups {
		if u.ID != 0 {
			list = append(list, &u)
		}
	}
	w.g.SetUplinks(uplinks.NewSnapshot(list))
}

// out and in handle a frame; the frame is changed.
func (w *world) out(b []byte) Result              { return w.g.Outbound(b, start) }
func (w *world) in(b []byte, uplink uint8) Result { return w.g.Inbound(b, uplink, start) }

// expect fails unless res is a verdict with a reason.
func (w *world) expect(res Result, v Verdict, why Reason) {
	w.t.Helper()
	if res.Verdict != v || res.Reason != why {
		w.t.Fatalf("verdict %d reason %q, want %d %q", res.Verdict, res.Reason, v, why)
	}
}

// sent fails unless res sends the frame by an uplink, and returns what the uplink gets.
func (w *world) sent(res Result, b []byte, uplink uint8) *seen {
	w.t.Helper()
	w.expect(res, Send, NoReason)
	if res.Uplink != uplink {
		w.t.Fatalf("uplink %d, want %d", res.Uplink, uplink)
	}
	return look(w.t, b)
}

// delivered fails unless res delivers the frame, addressed to the TAP, and returns what the TAP gets.
func (w *world) delivered(res Result, b []byte) *seen {
	w.t.Helper()
	w.expect(res, Deliver, NoReason)
	s := look(w.t, b)
	if [6]byte(s.eth.DstMAC) != tapMAC || [6]byte(s.eth.SrcMAC) != gatewayMAC {
		w.t.Fatalf("Ethernet addresses %s to %s", s.eth.SrcMAC, s.eth.DstMAC)
	}
	return s
}

// drops is the counter of a reason.
func (w *world) drops(why Reason) (n uint64) {
	w.g.Drops(func(reason string, count uint64) {
		if reason == why.String() {
			n = count
		}
	})
	return n
}

// seen is a frame as gopacket reads it.
type seen struct {
	eth  *layers.Ethernet
	ip   *layers.IPv4
	tcp  *layers.TCP
	udp  *layers.UDP
	icmp *layers.ICMPv4
	data []byte // of the IPv4 payload
}

// look decodes a frame and fails when a checksum is wrong.
func look(t testing.TB, b []byte) *seen {
	t.Helper()
	p := gopacket.NewPacket(b[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
	s := &seen{}
	s.eth, _ = p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	s.ip, _ = p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	s.tcp, _ = p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	s.udp, _ = p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	s.icmp, _ = p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if s.ip == nil {
		t.Fatalf("not IPv4: %v", p)
	}
	s.data = s.ip.Payload
	if problem := checkSums(b); problem != "" {
		t.Fatalf("%s: %v", problem, p)
	}
	return s
}

func (s *seen) src() packet.Addr { return packet.IPv4(binary.BigEndian.Uint32(s.ip.SrcIP.To4())) }
func (s *seen) dst() packet.Addr { return packet.IPv4(binary.BigEndian.Uint32(s.ip.DstIP.To4())) }

// checkSums names the checksum of a frame that is wrong, "" for none. It shares no code with the program.
func checkSums(b []byte) string {
	ip := b[packet.VnetLen+packet.EthernetLen:]
	n := int(ip[0]&15) * 4
	ip = ip[:binary.BigEndian.Uint16(ip[2:])]
	if wordSum(ip[:n]) != 0xffff {
		return "wrong header checksum"
	}
	l4, proto := ip[n:], ip[9]
	pseudo := append(append([]byte(nil), ip[12:20]...), 0, proto, byte(len(l4)>>8), byte(len(l4)))
	at := map[byte]int{6: 16, 17: 6, 1: 2, 33: 6, 136: 6}[proto]
	switch {
	case binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 || at == 0 || len(l4) < at+2:
		return ""
	case proto == 17 && l4[6] == 0 && l4[7] == 0 && b[0]&packet.VnetNeedsCsum == 0: // a sum to be completed is never 0
		return ""
	case proto == 1:
		pseudo = nil
	case b[0]&packet.VnetNeedsCsum != 0:
		if binary.BigEndian.Uint16(l4[at:]) != wordSum(pseudo) {
			return "wrong pseudo header sum"
		}
		return ""
	}
	if b[0]&packet.VnetNeedsCsum == 0 && wordSum(append(pseudo, l4...)) != 0xffff {
		return "wrong transport checksum"
	}
	return ""
}

// wordSum is the one's complement sum of RFC 1071, word by word.
func wordSum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(append([]byte(nil), b...), 0)
	}
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// ip is an IPv4 header for build.
func ip(src, dst packet.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 63, Id: 77, Protocol: proto,
		SrcIP: src.Netip().AsSlice(), DstIP: dst.Netip().AsSlice()}
}

// build makes a buffer: virtio header, Ethernet header, layers.
func build(t testing.TB, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: strangeMAC[:], DstMAC: strangeMAC[:], EthernetType: layers.EthernetTypeIPv4}
	if h, ok := body[0].(*layers.IPv4); ok && len(body) > 1 {
		switch l4 := body[1].(type) {
		case *layers.TCP:
			_ = l4.SetNetworkLayerForChecksum(h)
		case *layers.UDP:
			_ = l4.SetNetworkLayerForChecksum(h)
		}
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append([]gopacket.SerializableLayer{gopacket.Payload(make([]byte, packet.VnetLen)), eth}, body...)...)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

const protoTCP, protoUDP, protoICMP = layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4

func udpFrame(t testing.TB, src packet.Addr, sport uint16, dst packet.Addr, dport uint16, payload string) []byte {
	return build(t, ip(src, dst, protoUDP), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}, gopacket.Payload(payload))
}

// tcpFrame makes a segment with flags as in packet.SYN, sequence number 1000 and acknowledgement 2000.
func tcpFrame(t testing.TB, src packet.Addr, sport uint16, dst packet.Addr, dport uint16, flags uint8, payload string) []byte {
	return build(t, ip(src, dst, protoTCP), &layers.TCP{
		SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: 1000, Ack: 2000, Window: 100,
		FIN: flags&packet.FIN != 0, SYN: flags&packet.SYN != 0, RST: flags&packet.RST != 0, ACK: flags&packet.ACK != 0,
	}, gopacket.Payload(payload))
}

func echoFrame(t testing.TB, src, dst packet.Addr, icmpType uint8, id uint16, payload string) []byte {
	return build(t, ip(src, dst, protoICMP),
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(icmpType, 0), Id: id, Seq: 1}, gopacket.Payload(payload))
}

// errorFrame makes an ICMP error that quotes the IPv4 packet of a frame.
func errorFrame(t testing.TB, src, dst packet.Addr, quoted []byte) []byte {
	return build(t, ip(src, dst, protoICMP),
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(packet.ICMPUnreachable, 1)},
		gopacket.Payload(quoted[packet.VnetLen+packet.EthernetLen:]))
}

// partial leaves the transport checksum of a frame to the device, as the kernel does.
func partial(b []byte) []byte {
	frame := b[packet.VnetLen:]
	var p packet.Packet
	p.Decode(frame)
	at := p.ChecksumOffset()
	h := packet.VnetHeader(b)
	h[0] = packet.VnetNeedsCsum
	h.SetCsumStart(p.L4)
	binary.LittleEndian.PutUint16(h[8:], uint16(at)-p.L4)
	pseudo := append(append([]byte(nil), frame[26:34]...), 0, p.Proto, 0, 0)
	binary.BigEndian.PutUint16(pseudo[10:], uint16(int(p.L3)+int(p.Len)-int(p.L4)))
	binary.BigEndian.PutUint16(frame[at:], wordSum(pseudo))
	return b
}

// cut makes fragments of a frame, each with size bytes of payload but the last.
func cut(t testing.TB, b []byte, size int) (list [][]byte) {
	t.Helper()
	whole := look(t, b)
	for at := 0; at < len(whole.data); at += size {
		end := min(at+size, len(whole.data))
		h := *whole.ip
		h.FragOffset = uint16(at / 8)
		if end < len(whole.data) {
			h.Flags |= layers.IPv4MoreFragments
		}
		list = append(list, build(t, &h, gopacket.Payload(whole.data[at:end])))
	}
	return list
}

// join puts fragments together again, in any order, into the frame of a whole packet.
func join(t testing.TB, fragments [][]byte) []byte {
	t.Helper()
	if len(fragments) == 1 {
		return fragments[0]
	}
	data := make([]byte, 1<<16)
	end := 0
	var h layers.IPv4
	for _, f := range fragments {
		s := look(t, f)
		h = *s.ip
		at := int(h.FragOffset) * 8
		end = max(end, at+copy(data[at:], s.data))
	}
	h.FragOffset, h.Flags = 0, 0
	return build(t, &h, gopacket.Payload(data[:end]))
}

// clone copies a frame before it is rewritten.
func clone(b []byte) []byte { return append([]byte(nil), b...) }
