package tapgw

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
	"tapgw/uplinks"
)

// TestIsHostV6: which IPv6 addresses may be one host's beyond the link.
func TestIsHostV6(t *testing.T) {
	for addr, want := range map[string]bool{
		"2001:db8::1": true, "fd00::1": true, "fc00::1": true, "64:ff9b::192.0.2.1": true, "febf::1": false, "fec0::1": true,
		"::": false, "::1": false, "::192.0.2.1": false, "fe80::1": false,
		"ff02::1": false, "ff0e::1": false,
	} {
		if got := isHost(packet.AddrOf(netip.MustParseAddr(addr))); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// refused is what the sender of a frame is told about it.
func (d *dual) refused(b []byte, why Reason, mtu int) []byte {
	d.t.Helper()
	var p packet.Packet
	p.Decode(b[packet.VnetLen:])
	res := d.both.For(uplinks.IPv6).refuse(why, b, &p, mtu, start)
	d.expect(res, Drop, why)
	return res.Reply
}

// TestRefusalsV6: ICMPv6 errors by reason (RFC 4443 §3), from the router to the sender, with as much of the packet as
// fits in 1280 bytes; and a reset for TCP that we do not know.
func TestRefusalsV6(t *testing.T) {
	d := newDual(t)
	long := udpV6(t, tapV6, 4000, serverV6, 53, big)
	for why, want := range map[Reason][]byte{
		NoUplink:  {1, 0, 0, 0, 0, 0},
		TableFull: {1, 1, 0, 0, 0, 0},
		NoPort:    {1, 1, 0, 0, 0, 0},
		TooBig:    {2, 0, 0, 0, 0x05, 0x14},

		NoRoute: {1, 0, 0, 0, 0, 0}, ReservedSubnet: {1, 0, 0, 0, 0, 0}, ReservedHost: {4, 0, 0, 0, 0, 8},
	} {
		b := d.refused(clone(long), why, 1300)
		ip := b[packet.VnetLen+packet.EthernetLen:]
		src, dst, message := ip[8:24], ip[24:40], ip[40:]
		if !bytes.Equal(src, routerV6.AsSlice()) || !bytes.Equal(dst, tapV6.AsSlice()) || ip[6] != 58 || len(ip) != 1280 {
			t.Errorf("%s: header % x, %d bytes", why, ip[:40], len(ip))
		}
		if got := append(clone(message[:2]), message[4:8]...); !bytes.Equal(got, want) {
			t.Errorf("%s: % x, want % x", why, got, want)
		}
		if !bytes.Equal(message[8:], long[packet.VnetLen+packet.EthernetLen:][:len(message)-8]) {
			t.Errorf("%s: quotes something else", why)
		}
		pseudo := append(clone(ip[8:40]), 0, 0, byte(len(message)>>8), byte(len(message)), 0, 0, 0, 58)
		if wordSum(append(pseudo, message...)) != 0xffff {
			t.Errorf("%s: wrong checksum", why)
		}
	}
	segment := buildV6(t, ipV6(tapV6, serverV6, 6), &layers.TCP{SrcPort: 4000, DstPort: 80, Seq: 1, Ack: 77, ACK: true})
	ip := d.refused(segment, NotSYN, 0)[packet.VnetLen+packet.EthernetLen:]
	if ip[6] != 6 || !bytes.Equal(ip[8:24], serverV6.AsSlice()) || ip[40+13] != packet.RST || binary.BigEndian.Uint32(ip[40+4:]) != 77 {
		t.Errorf("answer % x", ip)
	}
}

// TestNobodyIsToldV6: RFC 4443 §2.4(e) and (f): nothing about errors and later fragments, nothing to who may be several or on
// another link, and no more than the rate limit.
func TestNobodyIsToldV6(t *testing.T) {
	d := newDual(t)
	quoted := udpV6(t, serverV6, 53, tapV6, 4000, "x")[packet.VnetLen+packet.EthernetLen:]
	later := buildV6(t, ipV6(tapV6, serverV6, 44), gopacket.Payload(append([]byte{17, 0, 0, 0xc1, 0, 0, 0, 7}, big[:64]...)))
	for name, b := range map[string][]byte{
		"error":         buildV6(t, ipV6(tapV6, serverV6, 58), icmpV6(1, 4), gopacket.Payload(append(make([]byte, 4), quoted...))),
		"later":         later,
		"link-local":    udpV6(t, netip.MustParseAddr("fe80::1"), 4000, serverV6, 53, "x"),
		"from a group":  udpV6(t, groupV6, 4000, serverV6, 53, "x"),
		"from nobody":   udpV6(t, nobodyV6, 4000, serverV6, 53, "x"),
		"from loopback": udpV6(t, netip.IPv6Loopback(), 4000, serverV6, 53, "x"),
	} {
		if b := d.refused(b, NoUplink, 0); b != nil {
			t.Errorf("%s: answer % x", name, b)
		}
	}
	told := 0
	for range 2 * perTick {
		if d.refused(udpV6(t, tapV6, 4000, serverV6, 53, "x"), NoUplink, 0) != nil {
			told++
		}
	}
	if told != perTick {
		t.Errorf("told %d times", told)
	}
}
