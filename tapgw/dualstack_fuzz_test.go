package tapgw

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// FuzzGatewayV6 is FuzzGateway for IPv6, with extension headers, fragments and errors among the seeds.
func FuzzGatewayV6(f *testing.F) {
	out := udpV6(f, insideV6, 4000, serverV6, 53, "question")
	in := udpV6(f, serverV6, 53, wan1V6, fuzzPort, "answer")
	segment := frameV6(f, insideV6, serverV6, &layers.TCP{SrcPort: 4000, DstPort: 80, SYN: true}, layers.IPProtocolTCP, "")
	for _, b := range [][]byte{
		out, in, segment, udpV6(f, serverV6, 53, wan1V6, fuzzPort+1, "x"), udpV6(f, wan1V6, 53, serverV6, 53, "x"),
		echoV6(f, insideV6, serverV6, packet.ICMPv6Echo), echoV6(f, serverV6, wan1V6, packet.ICMPv6EchoReply),
		errorV6(f, netip.MustParseAddr("2001:db8:fe::1"), wan1V6, packet.ICMPv6TooBig, udpV6(f, wan1V6, fuzzPort, serverV6, 53, "question")),
		errorV6(f, insideV6, serverV6, packet.ICMPv6Unreachable, udpV6(f, serverV6, 53, insideV6, 4000, "answer")),
		extendV6(out, packet.ProtoUDP, 60), extendV6(in, packet.ProtoUDP, 0), extendV6(in, packet.ProtoUDP, 43),
		fragmentV6(out, packet.ProtoUDP, 0, true), fragmentV6(out, packet.ProtoUDP, 8, false),
	} {
		f.Add(b, []byte(nil), false)
		f.Add(b, []byte(nil), true)
	}
	f.Add(fragmentV6(out, packet.ProtoUDP, 8, false), fragmentV6(out, packet.ProtoUDP, 0, true), false)
	f.Add(fragmentV6(in, packet.ProtoUDP, 0, true), fragmentV6(in, packet.ProtoUDP, 8, false), true)
	f.Fuzz(func(t *testing.T, one, two []byte, inbound bool) {
		d := newDual(t, onePort)
		d.both.SetNames(NewNames())
		d.expect(d.both.Outbound(clone(out), start), Send, NoReason)
		for _, frame := range [][]byte{one, two} {
			d.fuzz(t, frame, inbound)
		}
	})
}

// fuzz hands over one frame, whose checksum must be right afterwards if it was before.
func (d dual) fuzz(t *testing.T, frame []byte, inbound bool) {
	right := soundV6(frame)
	buf := append(clone(frame), guard...)
	b := buf[:len(frame):len(buf)]
	var res Result
	if inbound {
		res = d.both.Inbound(b, 1, start)
	} else {
		res = d.both.Outbound(b, start)
	}
	if string(buf[len(frame):]) != guard {
		t.Fatal("written behind the frame")
	}
	if right && (res.Verdict == Send || res.Verdict == Deliver || res.Verdict == GiveBack) && !soundV6(b) {
		t.Fatalf("wrong checksum afterwards: % x", b)
	}
	if packet.IsIPv6(frame[min(len(frame), packet.VnetLen):]) && len(res.Reply) > 0 && !soundV6(res.Reply) {
		t.Fatalf("answered by % x", res.Reply)
	}
}

// soundV6 reports whether a frame is a whole packet of IPv6 with TCP, UDP or ICMPv6 right behind its header, and a right checksum;
// 0 is none of UDP (RFC 8200 §8.1).
// It shares no code with the program.
func soundV6(b []byte) bool {
	const header = packet.VnetLen + packet.EthernetLen
	if len(b) < header+40 || b[0]&packet.VnetNeedsCsum != 0 || b[header-2] != 0x86 || b[header-1] != 0xdd {
		return false
	}
	ip := b[header:]
	n, next := int(binary.BigEndian.Uint16(ip[4:])), ip[6]
	if ip[0]>>4 != 6 || n < 8 || len(ip) < 40+n || next != 6 && next != 17 && next != 58 {
		return false
	}
	if next == 17 && ip[46]|ip[47] == 0 {
		return false
	}
	pseudo := append(append([]byte(nil), ip[8:40]...), 0, 0, byte(n>>8), byte(n), 0, 0, 0, next)
	return wordSum(append(pseudo, ip[40:40+n]...)) == 0xffff
}

// extendV6 puts an extension header of eight bytes before the transport header.
func extendV6(b []byte, proto, header uint8) []byte {
	return insertV6(b, header, []byte{proto, 0, 1, 4, 0, 0, 0, 0}) // a PadN option, or a routing header of type 1
}

// fragmentV6 makes a fragment of a frame's payload from an offset on: its first eight bytes, or the rest.
func fragmentV6(b []byte, proto uint8, offset uint16, more bool) []byte {
	const header = packet.VnetLen + packet.EthernetLen + 40
	data := b[header:]
	if more {
		data = data[:8]
		offset++
	} else {
		data = data[offset:]
	}
	cut := append(clone(b[:header]), data...)
	binary.BigEndian.PutUint16(cut[header-36:], uint16(len(data)))
	return insertV6(cut, 44, binary.BigEndian.AppendUint32([]byte{proto, 0, byte(offset >> 8), byte(offset)}, 7))
}

func insertV6(b []byte, number uint8, header []byte) []byte {
	const at = packet.VnetLen + packet.EthernetLen + 40
	out := append(append(clone(b[:at]), header...), b[at:]...)
	out[at-34] = number
	binary.BigEndian.PutUint16(out[at-36:], uint16(len(out)-at))
	return out
}

func echoV6(t testing.TB, src, dst netip.Addr, kind uint8) []byte {
	echo := string(binary.BigEndian.AppendUint32(nil, fuzzPort<<16|1))
	return frameV6(t, src, dst, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, layers.IPProtocolICMPv6, echo+"x")
}

// errorV6 is an ICMPv6 error that quotes the packet of a frame.
func errorV6(t testing.TB, src, dst netip.Addr, kind uint8, quoted []byte) []byte {
	word := string(binary.BigEndian.AppendUint32(nil, 1280))
	return frameV6(t, src, dst, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, layers.IPProtocolICMPv6,
		word+string(quoted[packet.VnetLen+packet.EthernetLen:]))
}
