package wire_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
)

// superV6 is a super-packet of IPv6 as the kernel hands it over, with n bytes of payload to be cut into pieces of size bytes.
func superV6(dst netip.Addr, proto byte, n, size int, extensions ...byte) []byte {
	header, gso, field := toPort(2000), byte(packet.GSOTCPv6), 16
	if proto == packet.ProtoUDP {
		header, gso, field = header[:8], packet.GSOUDPL4, 6
		binary.BigEndian.PutUint16(header[4:], uint16(8+n))
	} else {
		binary.BigEndian.PutUint32(header[4:], 1)
	}
	f := packetV6(dst, proto, append(header, pattern(n)...), extensions...)
	l4 := packet.EthernetLen + 40 + 8*len(extensions)
	ip := f[packet.VnetLen+packet.EthernetLen:]
	sum := packet.Fold(packet.PseudoHeader(packet.AddrOf(ispAddrV6), packet.AddrOf(dst), proto, len(header)+n))
	binary.BigEndian.PutUint16(ip[l4-packet.EthernetLen+field:], sum)
	h := packet.VnetHeader(f)
	h[0], h[1], h[8] = packet.VnetNeedsCsum, gso, byte(field)
	h.SetHdrLen(uint16(l4 + len(header)))
	h.SetGSOSize(uint16(size))
	h.SetCsumStart(uint16(l4))
	return f
}

// TestSuperPacketsOfIPv6AreCut: behind extension headers too, and however long the kernel says the headers are.
func TestSuperPacketsOfIPv6AreCut(t *testing.T) {
	const length = 30000
	for name, c := range map[string]struct {
		proto      byte
		size, mtu  int
		extensions []byte
	}{
		"TCP": {6, 1440, 1500, nil}, "TCP, small MTU": {6, 1440, 1280, nil}, "TCP behind options": {6, 1440, 1400, []byte{60}}, "UDP": {17, 1000, 1500, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			labtest.Must(t, p.gw.SetOffloads("wan1", lab.Offloads{RxChecksum: true, GRO: true}))
			port, fd := p.uplinkV6(t), rawSocket(t, p.isp, "cust")
			port.SetNextHop(ispMAC, ispMAC, c.mtu)
			sent := superV6(ispAddrV6, c.proto, length, c.size, c.extensions...)
			packet.VnetHeader(sent).SetHdrLen(0)
			send(t, port.Sender(), sent)
			if got := collectV6(t, fd, c.mtu, length); !bytes.Equal(got, pattern(length)) {
				t.Error("payload differs")
			}
		})
	}
}

// collectV6 is collect for packets of IPv6.
func collectV6(t *testing.T, fd, mtu, n int) (payload []byte) {
	t.Helper()
	for buf := make([]byte, 1<<16); len(payload) < n; {
		r, err := unix.Read(fd, buf)
		labtest.Must(t, err)
		var p packet.Packet
		if p.Decode(buf[:r]); !p.IPv6 || p.Kind != packet.TCP && p.Kind != packet.UDP {
			continue
		}
		if r > mtu+packet.EthernetLen {
			t.Fatalf("a packet of %d bytes, MTU %d", r, mtu)
		}
		payload = append(payload, payloadV6(t, buf[:r], &p)...)
	}
	return payload
}

// payloadV6 is what a packet carries, whose checksum must be right.
func payloadV6(t *testing.T, frame []byte, p *packet.Packet) []byte {
	t.Helper()
	l4 := frame[p.L4 : int(p.L3)+int(p.Len)]
	if sum := packet.Fold(packet.Sum(packet.PseudoHeader(p.Src, p.Dst, p.Proto, len(l4)), l4)); sum != 0xffff {
		t.Fatalf("the sum of % x is %04x", frame[:p.L4], sum)
	}
	if p.Kind == packet.UDP {
		return l4[8:]
	}
	return l4[int(l4[12]>>4)*4:]
}

// TestSuperPacketOfIPv6PassesWhole: over a device with offloads the frame arrives as it was sent.
func TestSuperPacketOfIPv6PassesWhole(t *testing.T) {
	p := newPair(t)
	frames := reader(p.uplinkV6(t))
	sent := superV6(wanAddrV6, packet.ProtoTCP, 60000, 1440)
	send(t, p.providerV6(t).Sender(), sent)
	if got := next(t, frames); !bytes.Equal(got, sent) {
		t.Errorf("virtio header % x became % x; %d bytes became %d", sent[:10], got[:10], len(sent), len(got))
	}
}
