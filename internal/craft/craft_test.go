package craft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	v4 "golang.org/x/net/ipv4"
	v6 "golang.org/x/net/ipv6"

	"tapgw/internal/packet"
)

var (
	link     = Link{Source: [6]byte{2, 1}, Destination: [6]byte{2, 2}}
	routerV4 = netip.MustParseAddr("198.18.73.2")
	hostV4   = netip.MustParseAddr("10.0.0.2")
	routerV6 = netip.MustParseAddr("2001:db8:1::7")
	hostV6   = netip.MustParseAddr("2001:db8:1::6")
	local    = netip.MustParseAddr("fe80::7467")
)

// read is a crafted frame as it is read without gopacket: addresses, hop limit, protocol and payload of its IP packet. It fails
// when an address of Ethernet, the ethertype, a length or a checksum is wrong.
func read(t *testing.T, b []byte, to [6]byte) (src, dst netip.Addr, hops, proto int, body []byte) {
	t.Helper()
	if !bytes.Equal(b[:packet.VnetLen], make([]byte, packet.VnetLen)) {
		t.Errorf("virtio header % x", b[:packet.VnetLen])
	}
	eth, ip := b[packet.VnetLen:][:14], b[packet.VnetLen+14:]
	if [6]byte(eth) != to || [6]byte(eth[6:]) != link.Source {
		t.Errorf("Ethernet addresses % x", eth[:12])
	}
	var pseudo []byte
	switch ethertype := binary.BigEndian.Uint16(eth[12:]); {
	case ethertype == 0x0800 && ip[0]>>4 == 4:
		h, err := v4.ParseHeader(ip)
		if err != nil || wordSum(ip[:20]) != 0xffff {
			t.Fatalf("header %v: %v", h, err)
		}
		ip = ip[:h.TotalLen] // short frames are padded
		hops, proto, body = h.TTL, h.Protocol, ip[20:]
		if proto != 1 {
			pseudo = append(bytes.Clone(ip[12:20]), 0, byte(proto), byte(len(body)>>8), byte(len(body)))
		}
		src, _ = netip.AddrFromSlice(h.Src.To4())
		dst, _ = netip.AddrFromSlice(h.Dst.To4())
	case ethertype == 0x86dd && ip[0]>>4 == 6:
		h, err := v6.ParseHeader(ip)
		if err != nil || h.PayloadLen != len(ip)-40 {
			t.Fatalf("header %v: %v", h, err)
		}
		hops, proto, body = h.HopLimit, h.NextHeader, ip[40:]
		pseudo = append(bytes.Clone(ip[8:40]), 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, byte(proto))
		src, _ = netip.AddrFromSlice(h.Src)
		dst, _ = netip.AddrFromSlice(h.Dst)
	default:
		t.Fatalf("ethertype %#x, version %d", ethertype, ip[0]>>4)
	}
	if wordSum(append(pseudo, body...)) != 0xffff {
		t.Error("wrong checksum")
	}
	return src, dst, hops, proto, body
}

// wordSum is the one's complement sum of RFC 1071, word by word.
func wordSum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(bytes.Clone(b), 0)
	}
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// TestError: type, code and MTU of each error in both families, and as much of the packet as may be quoted.
func TestError(t *testing.T) {
	short, long := bytes.Repeat([]byte{0x60}, 61), bytes.Repeat([]byte{0x60}, 9000)
	for _, c := range []struct {
		name       string
		why        Trouble
		icmpType   icmp.Type
		code, mtu  int
		quoted     []byte
		router, to netip.Addr
		quotes     int
	}{
		{"no route", NoRoute, v4.ICMPTypeDestinationUnreachable, 0, 0, short, routerV4, hostV4, 61},
		{"prohibited", Prohibited, v4.ICMPTypeDestinationUnreachable, 13, 0, short, routerV4, hostV4, 61},
		{"too big", TooBig, v4.ICMPTypeDestinationUnreachable, 4, 1400, long, routerV4, hostV4, 548},
		{"IPv6, no route", NoRoute, v6.ICMPTypeDestinationUnreachable, 0, 0, short, routerV6, hostV6, 61},
		{"IPv6, prohibited", Prohibited, v6.ICMPTypeDestinationUnreachable, 1, 0, long, routerV6, hostV6, 1232},
		{"IPv6, too big", TooBig, v6.ICMPTypePacketTooBig, 0, 100000, long, routerV6, hostV6, 1232},
		{"IPv6, bad source", BadSource, v6.ICMPTypeParameterProblem, 0, 8, short, routerV6, hostV6, 61},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst, hops, proto, body := read(t, Error(link, c.router, c.to, c.quoted, c.why, c.mtu), link.Destination)
			if src != c.router || dst != c.to || hops != 64 || proto != c.icmpType.Protocol() {
				t.Errorf("%s to %s, %d hops, protocol %d", src, dst, hops, proto)
			}
			m, err := icmp.ParseMessage(proto, body)
			if err != nil || m.Type != c.icmpType || m.Code != c.code {
				t.Fatalf("message %+v: %v", m, err)
			}
			if mtu := binary.BigEndian.Uint32(body[4:]); int(mtu) != c.mtu {
				t.Errorf("MTU %d", mtu)
			}
			if !bytes.Equal(body[8:], c.quoted[:c.quotes]) {
				t.Errorf("%d bytes quoted, want %d", len(body)-8, c.quotes)
			}
		})
	}
}

// segment is a TCP segment from port 4000 to 80 with sequence number 1000, acknowledgement 2000, flags, and payload.
func segment(flags byte, payload string) []byte {
	b := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint16(b, 4000)
	binary.BigEndian.PutUint16(b[2:], 80)
	binary.BigEndian.PutUint32(b[4:], 1000)
	binary.BigEndian.PutUint32(b[8:], 2000)
	b[12], b[13] = 5<<4, flags
	return append(b, payload...)
}

// TestReset: the sequence numbers that RFC 9293 §3.5.2 asks for, in both families.
func TestReset(t *testing.T) {
	const fin, syn, rst, ack = packet.FIN, packet.SYN, packet.RST, packet.ACK
	for _, ends := range [][2]netip.Addr{{routerV4, hostV4}, {routerV6, hostV6}} {
		for _, c := range []struct {
			segment  []byte
			seq, ack uint32
			flags    byte
		}{
			{segment(ack, "data"), 2000, 0, rst},
			{segment(syn, ""), 0, 1001, rst | ack},
			{segment(fin, "data"), 0, 1005, rst | ack},
		} {
			src, dst, _, proto, tcp := read(t, Reset(link, c.segment, ends[0], ends[1]), link.Destination)
			if src != ends[0] || dst != ends[1] || proto != packet.ProtoTCP {
				t.Errorf("%s to %s, protocol %d", src, dst, proto)
			}
			ports := binary.BigEndian.Uint32(tcp)
			seq, acked := binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:])
			if ports != 80<<16|4000 || seq != c.seq || acked != c.ack || tcp[13] != c.flags {
				t.Errorf("ports %#x, sequence %d, acknowledgement %d, flags %#x", ports, seq, acked, tcp[13])
			}
		}
		if Reset(link, segment(rst, ""), ends[0], ends[1]) != nil || Reset(link, segment(syn, "")[:19], ends[0], ends[1]) != nil {
			t.Error("a reset, or less than a segment, is answered")
		}
	}
}

// TestResetAt: a reset at the number, and nothing else.
func TestResetAt(t *testing.T) {
	for _, ends := range [][2]netip.Addr{{routerV4, hostV4}, {routerV6, hostV6}} {
		b := ResetAt(link, netip.AddrPortFrom(ends[0], 80), netip.AddrPortFrom(ends[1], 4000), 0xfffffffe)
		src, dst, _, proto, tcp := read(t, b, link.Destination)
		if src != ends[0] || dst != ends[1] || proto != packet.ProtoTCP {
			t.Errorf("%s to %s, protocol %d", src, dst, proto)
		}
		if binary.BigEndian.Uint32(tcp) != 80<<16|4000 || binary.BigEndian.Uint64(tcp[4:]) != 0xfffffffe<<32 || tcp[13] != packet.RST {
			t.Errorf("segment % x", tcp)
		}
	}
}

// TestAdvertisement: flags, target and option as RFC 4861 §7.2.4 has them, for who has an address and who has none yet.
func TestAdvertisement(t *testing.T) {
	for _, c := range []struct {
		to, dst netip.Addr
		mac     [6]byte
		flags   byte
	}{
		{hostV6, hostV6, link.Destination, 0xe0},
		{netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1"), [6]byte{0x33, 0x33, 0, 0, 0, 1}, 0xa0},
	} {
		src, dst, hops, proto, body := read(t, Advertisement(link, local, c.to), c.mac)
		if src != local || dst != c.dst || hops != 255 || proto != 58 {
			t.Errorf("%s to %s, %d hops, protocol %d", src, dst, hops, proto)
		}
		want := append([]byte{136, 0, body[2], body[3], c.flags, 0, 0, 0}, local.AsSlice()...)
		want = append(append(want, 2, 1), link.Source[:]...)
		if !bytes.Equal(body, want) {
			t.Errorf("message\n% x, want\n% x", body, want)
		}
	}
}

// TestSolicited: what a solicitation asks for, and those that are not valid.
func TestSolicited(t *testing.T) {
	bare := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...)
	source := []byte{1, 1, 2, 2, 0, 0, 0, 0}
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	with := func(options ...byte) []byte { return append(bytes.Clone(bare), options...) }
	coded := bytes.Clone(bare)
	coded[1] = 1
	for name, c := range map[string]struct {
		message     []byte
		sourced, ok bool
	}{
		"bare":             {bare, false, true},
		"with source":      {with(source...), true, true},
		"with nonce":       {with(nonce...), false, true},
		"both":             {with(append(nonce, source...)...), true, true},
		"code":             {coded, false, false},
		"short":            {bare[:23], false, false},
		"nothing":          {nil, false, false},
		"option of length": {with(1, 0, 2, 2, 0, 0, 0, 0), false, false},
		"option cut short": {with(1, 2, 2, 2, 0, 0, 0, 0), false, false},
		"half an option":   {with(1), false, false},
	} {
		target, sourced, ok := Solicited(c.message)
		if ok != c.ok || ok && (target != local || sourced != c.sourced) {
			t.Errorf("%s: %s, %v, %v", name, target, sourced, ok)
		}
	}
}
