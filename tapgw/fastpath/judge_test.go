package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// message is an ICMP message; rest is its second word.
func message(kind uint8, rest uint32, body []byte) []byte {
	m := append([]byte{kind, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, rest)...)
	m = append(m, body...)
	binary.BigEndian.PutUint16(m[2:], ^packet.Fold(packet.Sum(0, m)))
	return m
}

var padding = []byte{1, 1, 1, 1, 1, 1, 1, 0} // IPv4 options

// ipv4 is a packet; options must be whole words.
func ipv4(proto uint8, src, dst uint32, options, payload []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(payload))
	b[0], b[8], b[9] = byte(0x45+len(options)/4), 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
	binary.BigEndian.PutUint32(b[12:], src)
	binary.BigEndian.PutUint32(b[16:], dst)
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[10:], ^packet.Fold(packet.Sum(0, b)))
	return append(b, payload...)
}

// framed adds an Ethernet header for the loopback device.
func framed(ip []byte) []byte { return append([]byte{12: 8, 13: 0}, ip...) }

// to is a TCP or UDP packet of a stranger.
func to(proto uint8, dst uint32, port uint16) []byte {
	return sample{src: stranger, dst: dst, sport: 7, dport: port, proto: proto, flags: packet.SYN, payload: 16}.build()
}

// optional is a frame whose IPv4 header gets options.
func optional(frame []byte) []byte {
	h := frame[ip:]
	src, dst := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	return framed(ipv4(h[9], src, dst, padding, h[20:]))
}

func fragment(frame []byte, word uint16) []byte {
	binary.BigEndian.PutUint16(frame[ip+6:], word)
	return frame
}

// from is a frame with a source address.
func from(mac [6]byte, tag uint8, frame []byte) []byte {
	mac[5] = tag
	copy(frame[6:], mac[:])
	return frame
}

// ports are packets that the port decides about.
func (j *judging) ports() []arrival {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	mine := j.udp.OutsidePort
	return []arrival{
		{"TCP, free", to(tcp, outside, unsent), others, ""},
		{"UDP, free", to(udp, outside, unsent), others, ""},
		{"TCP, mapped", to(tcp, outside, j.tcp.OutsidePort), ours, ""},
		{"UDP, mapped", to(udp, outside, mine), ours, ""},
		{"TCP, mapped for UDP", to(tcp, outside, mine), others, ""},
		{"UDP, mapped for TCP", to(udp, outside, j.tcp.OutsidePort), others, ""},
		{"TCP, shared", to(tcp, outside, shared), ours, ""},
		{"UDP, resting", to(udp, outside, j.resting), ours, ""},
		{"TCP, resting for UDP", to(tcp, outside, j.resting), others, ""},
		{"TCP, unknown to the kernel", to(tcp, bare, unsent), ours, checksMore},
		{"UDP, unknown to the kernel", to(udp, bare, unsent), ours, checksMore},
		{"TCP, of another address", to(tcp, neighbour, j.tcp.OutsidePort), others, ""},
		{"UDP, of another address", to(udp, neighbour, mine), others, ""},
		{"UDP, service", to(udp, outside, service), served, ""},
		{"UDP, service of another address", to(udp, neighbour, service), others, ""},
		{"TCP, service of UDP", to(tcp, outside, service), others, ""},
		{"UDP, after a service", to(udp, outside, service+1), others, ""},
		{"UDP, before a service", to(udp, outside, service-1), others, ""},
		{"UDP, a word before a service", to(udp, outside, service-64), others, ""},
		{"options, mapped", optional(to(udp, outside, mine)), ours, ""},
		{"options, free", optional(to(udp, outside, unsent)), others, ""},
		{"options, service", optional(to(udp, outside, service)), served, ""},
		{"bad data offset, mapped", put(l4+12, 1<<4)(to(tcp, outside, j.tcp.OutsidePort)), ours, ""},
		{"bad data offset, free", put(l4+12, 1<<4)(to(tcp, outside, unsent)), others, hostDrops},
		{"header cut off", to(udp, outside, mine)[:l4+7], others, hostDrops},
		{"IPv4 header too short", put(ip, 0x44)(to(udp, outside, mine)), others, hostDrops},
		{"IP version 6", put(ip, 0x65)(to(udp, outside, mine)), others, hostDrops},
	}
}

// called is a GRE packet of a version with a key, as those of PPTP calls with an identifier.
func (j *judging) called(version byte, id uint16) []byte {
	header := binary.BigEndian.AppendUint16([]byte{0x20, version, 0x88, 0x0b, 0, 8}, id)
	return framed(ipv4(greProto, j.call.Remote.V4(), outside, nil, append(header, "datadata"...)))
}

// portless are packets of which something else decides.
func (j *judging) portless() []arrival {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	mine := func() []byte { return to(udp, outside, j.udp.OutsidePort) }
	notForUs, fromGo := "does not get as far as Go", "comes from Go"
	return []arrival{
		{"first fragment, mapped", fragment(mine(), 0x2000), ours, ""},
		{"first fragment, free", fragment(to(udp, outside, unsent), 0x2000), ours, checksMore},
		{"later fragment", fragment(put(ip+5, 9)(to(tcp, outside, unsent)), 0x0010), ours, ""},
		{"last fragment of eight bytes", fragment(put(ip+5, 8)(put(ip+3, 28)(mine()[:l4+8])), 0x0001), ours, ""},
		{"first fragment, options", fragment(optional(mine()), 0x2000), ours, ""},
		{"ICMP fragment", fragment(icmp(packet.ICMPEcho, unsent<<16, nil), 0x2000), ours, checksMore},
		{"fragment of another protocol", fragment(put(ip+9, 132)(mine()), 0x2000), others, ""},
		{"fragment, another address", fragment(to(udp, neighbour, unsent), 0x2000), others, ""},
		{"may not be fragmented", fragment(to(udp, outside, unsent), 0x4000), others, ""},
		{"SCTP", put(ip+9, 132)(mine()), others, ""},
		{"GRE", put(ip+9, greProto)(mine()), others, ""},
		{"GRE of a session", j.pair(greProto, j.gre.Remote.V4(), outside), ours, ""},
		{"GRE of a session, options", optional(j.pair(greProto, j.gre.Remote.V4(), outside)), ours, ""},
		{"GRE of a session, without payload", framed(ipv4(greProto, j.gre.Remote.V4(), outside, nil, nil)), ours, ""},
		{"GRE of a session, first fragment", fragment(j.pair(greProto, j.gre.Remote.V4(), outside), 0x2000), ours, ""},
		{"GRE of a session, last fragment", fragment(put(ip+5, 7)(j.pair(greProto, j.gre.Remote.V4(), outside)), 0x0010), ours, ""},
		{"GRE to another address of ours", j.pair(greProto, j.gre.Remote.V4(), bare), others, ""},
		{"GRE to another address", j.pair(greProto, j.gre.Remote.V4(), neighbour), others, ""},
		{"a PPTP call", j.called(1, j.call.OutsidePort), ours, ""},
		{"a PPTP call, options", optional(j.called(1, j.call.OutsidePort)), ours, ""},
		{"another PPTP call", j.called(1, j.call.OutsidePort+1), others, ""},
		{"GRE with a key beside a PPTP call", j.called(0, j.call.OutsidePort), others, ""},
		{"PPTP call 0", j.called(1, 0), others, ""},
		{"fragment of GRE", fragment(j.called(1, unsent), 0x2000), ours, checksMore},
		{"ESP beside GRE", j.pair(50, j.gre.Remote.V4(), outside), others, ""},
		{"protocol 0 beside ICMP", j.pair(0, j.ask.Remote.V4(), outside), others, ""},
		{"IGMP", j.pair(packet.ProtoIGMP, stranger, outside), others, ""},
		{"IPv6", put(12, 0x86)(put(13, 0xdd)(mine())), others, ""},
		{"VLAN", put(12, 0x81)(mine()), others, ""},
		{"for another station", put(0, 2)(mine()), others, notForUs},
		{"broadcast", append(bytes.Repeat([]byte{0xff}, 6), mine()[6:]...), others, notForUs},
		{"given back", from(secret, 0, mine()), others, fromGo},
		{"given back, tagged", from(secret, 200, mine()), others, fromGo},
		{"almost given back", from([6]byte{secret[0], secret[1], secret[2], secret[3], secret[4] ^ 1}, 0, mine()), ours, ""},
	}
}

// pair is a packet of a protocol without ports.
func (j *judging) pair(proto uint8, src, dst uint32) []byte {
	return framed(ipv4(proto, src, dst, nil, []byte("sixteen bytes...")))
}

// toWhole are packets to an inside host's own address.
func (j *judging) toWhole() []arrival {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	to := func(proto uint8, port uint16) []byte { return to(proto, whole, port) }
	return []arrival{
		{"TCP, whole", to(tcp, unsent), ours, ""},
		{"UDP, whole", to(udp, unsent), ours, ""},
		{"UDP, service, whole", to(udp, service), ours, ""},
		{"options, whole", optional(to(udp, unsent)), ours, ""},
		{"fragment, whole", fragment(to(udp, unsent), 0x2000), ours, ""},
		{"SCTP, whole", put(ip+9, 132)(to(udp, unsent)), ours, ""},
		{"echo request, whole", framed(ipv4(packet.ProtoICMP, stranger, whole, nil, message(packet.ICMPEcho, 1<<16, nil))), ours, ""},
		{"router advertisement, whole", framed(ipv4(packet.ProtoICMP, stranger, whole, nil, message(9, 0, nil))), ours, ""},
	}
}

// icmp is a message of a stranger.
func icmp(kind uint8, rest uint32, body []byte) []byte {
	return framed(ipv4(packet.ProtoICMP, stranger, outside, nil, message(kind, rest, body)))
}

// queries are ICMP messages that quote nothing.
func (j *judging) queries() []arrival {
	reply := func(kind uint8, src uint32, id uint16) []byte {
		return framed(ipv4(packet.ProtoICMP, src, outside, nil, message(kind, uint32(id)<<16|1, []byte("abcd"))))
	}
	mine := j.ask.OutsidePort
	elsewhere := ipv4(packet.ProtoICMP, j.ask.Remote.V4(), bare, nil, message(packet.ICMPEchoReply, uint32(mine)<<16, nil))
	return []arrival{
		{"echo reply", reply(packet.ICMPEchoReply, j.ask.Remote.V4(), mine), ours, ""},
		{"timestamp reply", reply(packet.ICMPTimestampReply, j.ask.Remote.V4(), mine), ours, ""},
		{"echo reply, options", optional(reply(packet.ICMPEchoReply, j.ask.Remote.V4(), mine)), ours, ""},
		{"echo reply, host's identifier", reply(packet.ICMPEchoReply, j.ask.Remote.V4(), mine+1), others, ""},
		{"echo reply, stranger", reply(packet.ICMPEchoReply, stranger, mine), others, ""},
		{"echo reply, other address of ours", framed(elsewhere), others, ""},
		{"echo request", reply(packet.ICMPEcho, j.ask.Remote.V4(), mine), others, ""},
		{"timestamp request", reply(packet.ICMPTimestamp, j.ask.Remote.V4(), mine), others, ""},
		{"router advertisement", reply(9, j.ask.Remote.V4(), mine), others, ""},
		{"echo reply, cut", reply(packet.ICMPEchoReply, j.ask.Remote.V4(), mine)[:l4+7], others, hostDrops},
	}
}

// quoted is a packet that was sent, as an error quotes it.
func quoted(tr nat.Translation) []byte {
	if tr.Proto == packet.ProtoICMP {
		return ipv4(tr.Proto, tr.Outside.V4(), tr.Remote.V4(), nil, message(packet.ICMPEcho, uint32(tr.OutsidePort)<<16, nil))
	}
	if tr.Proto == greProto {
		return ipv4(tr.Proto, tr.Outside.V4(), tr.Remote.V4(), nil, []byte("tunnelled"))
	}
	s := sample{src: tr.Outside.V4(), dst: tr.Remote.V4(), sport: tr.OutsidePort, dport: tr.RemotePort, proto: tr.Proto, payload: 20}
	return s.build()[packet.EthernetLen:]
}

// errors are of each type, about packets of ours, and of the host's with another port or identifier.
func (j *judging) errors() (list []arrival) {
	for _, tr := range []nat.Translation{j.tcp, j.udp, j.ask, j.gre} {
		for _, kind := range []uint8{packet.ICMPUnreachable, packet.ICMPTimeExceeded, packet.ICMPParameter} {
			name := fmt.Sprintf("protocol %d in type %d", tr.Proto, kind)
			list = append(list, arrival{name, icmp(kind, 0, quoted(tr)), ours, ""})
			hosts := tr
			if hosts.OutsidePort = unsent; tr.Proto == greProto {
				hosts.Remote = packet.IPv4(stranger)
			}
			list = append(list, arrival{name + ", host's", icmp(kind, 0, quoted(hosts)), others, ""})
		}
	}
	return append(list, j.strangeErrors()...)
}

func (j *judging) strangeErrors() []arrival {
	const kind = packet.ICMPUnreachable
	whole := quoted(j.udp)
	hosts, elsewhere, unknown, over, rest := j.udp, j.udp, j.udp, j.udp, j.udp
	hosts.OutsidePort, elsewhere.Outside, over.Remote, rest.OutsidePort = unsent, packet.IPv4(neighbour), packet.IPv4(stranger), j.resting
	unknown.Outside, unknown.OutsidePort = packet.IPv4(bare), unsent
	options := func(q []byte) []byte { return ipv4(q[9], outside, j.udp.Remote.V4(), padding, q[20:]) }
	reply := ipv4(packet.ProtoICMP, outside, j.ask.Remote.V4(), nil, message(packet.ICMPEchoReply, uint32(j.ask.OutsidePort)<<16, nil))
	toBare := framed(ipv4(packet.ProtoICMP, stranger, bare, nil, message(kind, 0, whole)))
	return []arrival{
		{"quote of eight bytes", icmp(kind, 0, whole[:28]), ours, ""},
		{"quote of seven bytes", icmp(kind, 0, whole[:27]), others, ""},
		{"quote without a whole header", icmp(kind, 0, whole[:19]), others, ""},
		{"no quote", icmp(kind, 0, nil), others, ""},
		{"quote with options", icmp(kind, 0, options(whole)), ours, ""},
		{"quote with options, cut", icmp(kind, 0, options(whole)[:35]), others, ""},
		{"quote with options, host's", icmp(kind, 0, options(quoted(hosts))), others, ""},
		{"options before the quote", optional(icmp(kind, 0, whole)), ours, ""},
		{"quote of another address", icmp(kind, 0, quoted(elsewhere)), others, ""},
		{"quote of an echo reply", icmp(kind, 0, reply), others, ""},
		{"quote of another protocol", icmp(kind, 0, put(9, 132)(slices.Clone(whole))), others, ""},
		{"quote of GRE without payload", icmp(kind, 0, ipv4(greProto, outside, j.gre.Remote.V4(), nil, nil)), ours, ""},
		{"quote of GRE, of its header alone", icmp(kind, 0, quoted(j.gre)[:20]), ours, ""},
		{"quote of IPv6", icmp(kind, 0, put(0, 0x65)(slices.Clone(whole))), others, ""},
		{"redirect", icmp(5, 0, whole), others, ""},
		{"source quench", icmp(4, 0, whole), others, ""},
		{"quote of a port the kernel does not know", icmp(kind, 0, quoted(unknown)), ours, checksMore},
		{"quote of a session that is over", icmp(kind, 0, quoted(over)), ours, checksMore},
		{"quote of a resting port", icmp(kind, 0, quoted(rest)), ours, checksMore},
		{"sent to another address than it quotes", toBare, ours, checksMore},
		{"wrong checksum", put(l4+2, 0xee)(icmp(kind, 0, whole)), ours, checksMore},
		{"wrong checksum in the quote", icmp(kind, 0, put(10, whole[10]+1)(slices.Clone(whole))), ours, checksMore},
	}
}

// TestJudge gives received packets to the program and to the gateway in userspace, which decides where there is no fast
// path: both must hold the same for ours.
func TestJudge(t *testing.T) {
	j := newJudging(t)
	for _, list := range [][]arrival{j.ports(), j.portless(), j.toWhole(), j.toOther(), j.queries(), j.errors()} {
		for _, a := range list {
			t.Run(a.name, func(t *testing.T) { j.judge(t, a) })
		}
	}
}

// TestAnnouncedAddress: what comes to an address that is announced goes to Go; the addresses known before stay as they are.
func TestAnnouncedAddress(t *testing.T) {
	j := newJudging(t)
	before := to(packet.ProtoTCP, neighbour, unsent)
	expect := func(frame []byte, want whose) {
		t.Helper()
		code, _ := run(t, j.ingress, frame, 0)
		if got := code == codeHit; got != (want == ours) {
			t.Errorf("handed to Go: %v", got)
		}
	}
	expect(before, others)
	labtest.Must(t, j.AddAddresses(uplinkID, uplinks.IPv4, []packet.Addr{packet.IPv4(outside), packet.IPv4(neighbour)}))
	expect(before, ours)
	expect(to(packet.ProtoTCP, outside, unsent), others)
	expect(to(packet.ProtoTCP, outside, j.tcp.OutsidePort), ours)
}
