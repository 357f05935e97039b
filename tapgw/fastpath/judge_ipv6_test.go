package fastpath

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Types of ICMPv6 that stay on their link.
const (
	routerAdvertisement   = 134
	neighbourSolicitation = 135
	listenerReport        = 143
)

// ipv6 is a packet.
func ipv6(proto uint8, src, dst packet.Addr, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	putAddr(b[8:], src)
	putAddr(b[24:], dst)
	return append(b, payload...)
}

// framedV6 adds an Ethernet header for the loopback device.
func framedV6(ip []byte) []byte { return append([]byte{12: 0x86, 13: 0xdd}, ip...) }

// message is one of ICMPv6; rest is its second word.
func (j *judging) message(kind uint8, src, dst packet.Addr, rest uint32, body []byte) []byte {
	m := append([]byte{kind, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, rest)...)
	m = append(m, body...)
	binary.BigEndian.PutUint16(m[2:], ^packet.Fold(packet.Sum(packet.PseudoHeader(src, dst, packet.ProtoICMPv6, len(m)), m)))
	return ipv6(packet.ProtoICMPv6, src, dst, m)
}

// to is a TCP or UDP packet of a stranger.
func (j *judging) to(proto uint8, dst uint32, port uint16) []byte {
	return sample{family: j.family, src: stranger, dst: dst, sport: 7, dport: port, proto: proto, flags: packet.SYN, payload: 16}.build()
}

// quoted is a packet that was sent, as an error quotes it.
func (j *judging) quoted(tr nat.Translation) []byte {
	switch tr.Proto {
	case packet.ProtoICMPv6:
		return j.message(packet.ICMPv6Echo, tr.Outside, tr.Remote, uint32(tr.OutsidePort)<<16, nil)
	case greProto:
		return ipv6(greProto, tr.Outside, tr.Remote, []byte("tunnelled"))
	}
	s := sample{
		family: j.family, src: numberOf(tr.Outside), dst: numberOf(tr.Remote), sport: tr.OutsidePort, dport: tr.RemotePort, proto: tr.Proto,
		payload: 20,
	}
	return s.build()[ip:]
}

// about is an error of a stranger.
func (j *judging) about(kind uint8, quote []byte) []byte {
	return framedV6(j.message(kind, j.addr(stranger), j.addr(outside), 0, quote))
}

// portsV6 are packets that the port decides about.
func (j *judging) portsV6() []arrival {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	mine := j.udp.OutsidePort
	mapped := packet.Addr{Lo: 0xffff<<32 | outside}
	return []arrival{
		{"TCP, free", j.to(tcp, outside, unsent), others, ""},
		{"UDP, free", j.to(udp, outside, unsent), others, ""},
		{"TCP, mapped", j.to(tcp, outside, j.tcp.OutsidePort), ours, ""},
		{"UDP, mapped", j.to(udp, outside, mine), ours, ""},
		{"TCP, mapped for UDP", j.to(tcp, outside, mine), others, ""},
		{"TCP, shared", j.to(tcp, outside, shared), ours, ""},
		{"UDP, resting", j.to(udp, outside, j.resting), ours, ""},
		{"TCP, unknown to the kernel", j.to(tcp, bare, unsent), ours, checksMore},
		{"TCP, of another address", j.to(tcp, neighbour, j.tcp.OutsidePort), others, ""},
		{"UDP, of the next address", nudged(j.to(udp, outside, mine), ip+39), others, ""},
		{"UDP, of the next prefix", nudged(j.to(udp, outside, mine), ip+31), others, ""},
		{"UDP, service", j.to(udp, outside, service), served, ""},
		{"UDP, service of another address", j.to(udp, neighbour, service), others, ""},
		{"UDP, mapped elsewhere", j.to(udp, foreign, j.otherUDP.OutsidePort), ours, ""},
		{"UDP, free elsewhere", j.to(udp, foreign, unsent), others, ""},
		{"TCP, whole", j.to(tcp, whole, unsent), ours, ""},
		{"UDP, service, whole", j.to(udp, whole, service), ours, ""},
		{"whole elsewhere", j.to(tcp, foreigner, unsent), ours, ""},
		{"header cut off", j.to(udp, outside, mine)[:l4Of(j.family)+7], others, hostDrops},
		{"another version", put(ip, 0x45)(j.to(udp, outside, mine)), others, hostDrops},
		{"to an IPv4 address", framedV6(ipv6(udp, j.addr(stranger), mapped, []byte{0, 7, byte(mine >> 8), byte(mine), 0, 8, 0, 0})), others, hostDrops},
		{"VLAN", put(12, 0x81)(put(13, 0)(j.to(udp, outside, mine))), others, ""},
		{"given back", from(secret, 0, j.to(udp, outside, mine)), others, "comes from Go"},
		{"for another station", put(0, 2)(j.to(udp, outside, mine)), others, "does not get as far as Go"},
	}
}

// nudged is a frame with another last bit in a byte.
func nudged(f []byte, at int) []byte {
	f[at] ^= 1
	return f
}

// extendedV6 are packets with extension headers: Go walks over those, wherever they lead.
func (j *judging) extendedV6() (list []arrival) {
	mine := func() []byte { return j.to(packet.ProtoUDP, outside, j.udp.OutsidePort) }
	for _, header := range []byte{0, 60} {
		name := fmt.Sprintf("extension header %d", header)
		list = append(list,
			arrival{name + ", mapped", extended(header)(mine()), ours, ""},
			arrival{name + ", free", extended(header)(j.to(packet.ProtoUDP, outside, unsent)), ours, checksMore},
			arrival{name + ", another address", extended(header)(j.to(packet.ProtoUDP, neighbour, unsent)), others, ""},
			arrival{name + ", whole", extended(header)(j.to(packet.ProtoUDP, whole, unsent)), ours, ""})
	}
	return append(list,
		arrival{"routing header", extended(43)(mine()), ours, ""},
		arrival{"fragment alone", extended(44)(mine()), ours, ""},
		arrival{"first fragment", put(ip+43, 1)(extended(44)(mine())), ours, ""},
		arrival{"fragment, elsewhere", extended(44)(j.to(packet.ProtoUDP, foreign, j.otherUDP.OutsidePort)), ours, ""})
}

// messagesV6 are of ICMPv6, and of protocols without ports.
func (j *judging) messagesV6() []arrival {
	reply := func(src packet.Addr, dst uint32, id uint16) []byte {
		return framedV6(j.message(packet.ICMPv6EchoReply, src, j.addr(dst), uint32(id)<<16|1, []byte("abcd")))
	}
	ask := func(kind uint8, dst uint32) []byte {
		return framedV6(j.message(kind, j.addr(stranger), j.addr(dst), 1<<16, make([]byte, 16)))
	}
	pair := func(proto uint8, src packet.Addr, dst uint32) []byte {
		return framedV6(ipv6(proto, src, j.addr(dst), []byte("sixteen bytes...")))
	}
	mine := j.ask.OutsidePort
	return []arrival{
		{"echo reply", reply(j.ask.Remote, outside, mine), ours, ""},
		{"echo reply, host's identifier", reply(j.ask.Remote, outside, mine+1), others, ""},
		{"echo reply, stranger", reply(j.addr(stranger), outside, mine), others, ""},
		{"echo reply, other address of ours", reply(j.ask.Remote, bare, mine), others, ""},
		{"echo reply, elsewhere", reply(j.otherAsk.Remote, foreign, j.otherAsk.OutsidePort), ours, ""},
		{"echo reply, cut", reply(j.ask.Remote, outside, mine)[:l4Of(j.family)+7], others, hostDrops},
		{"echo request", ask(packet.ICMPv6Echo, outside), others, ""},
		{"echo request, whole", ask(packet.ICMPv6Echo, whole), ours, ""},
		{"neighbour solicitation", ask(neighbourSolicitation, outside), others, ""},
		{"router advertisement", ask(routerAdvertisement, outside), others, ""},
		{"listener report", ask(listenerReport, outside), others, ""},
		{"neighbour solicitation, unknown to the kernel", ask(neighbourSolicitation, bare), others, ""},
		{"ICMP of IPv4", pair(packet.ProtoICMP, j.ask.Remote, outside), others, ""},
		{"GRE", pair(greProto, j.addr(stranger), outside), others, ""},
		{"GRE of a session", pair(greProto, j.gre.Remote, outside), ours, ""},
		{"GRE of a session elsewhere", pair(greProto, j.otherGRE.Remote, foreign), ours, ""},
		{"ESP beside GRE", pair(50, j.gre.Remote, outside), others, ""},
		{"SCTP, whole", pair(132, j.addr(stranger), whole), ours, ""},
		{"no next header", pair(59, j.gre.Remote, outside), others, ""},
	}
}

// errorsV6 are of each type, about packets of ours, and of the host's with another port or identifier.
func (j *judging) errorsV6() (list []arrival) {
	for _, tr := range []nat.Translation{j.tcp, j.udp, j.ask, j.gre} {
		for kind := uint8(packet.ICMPv6Unreachable); kind <= packet.ICMPv6Parameter; kind++ {
			name := fmt.Sprintf("protocol %d in type %d", tr.Proto, kind)
			list = append(list, arrival{name, j.about(kind, j.quoted(tr)), ours, ""})
			hosts := tr
			if hosts.OutsidePort = unsent; tr.Proto == greProto {
				hosts.OutsidePort, hosts.Remote = 0, j.addr(stranger)
			}
			list = append(list, arrival{name + ", host's", j.about(kind, j.quoted(hosts)), others, ""})
		}
	}
	const kind = packet.ICMPv6Unreachable
	quote, rest, elsewhere := j.quoted(j.udp), j.udp, j.udp
	rest.OutsidePort, elsewhere.Outside = j.resting, j.addr(neighbour)
	reply := j.message(packet.ICMPv6EchoReply, j.addr(outside), j.ask.Remote, uint32(j.ask.OutsidePort)<<16, nil)
	behind := extended(60)(framedV6(slices.Clone(quote)))[ip:]
	return append(list,
		arrival{"quote of eight bytes", j.about(kind, quote[:48]), ours, ""},
		arrival{"quote of seven bytes", j.about(kind, quote[:47]), others, ""},
		arrival{"quote without a whole header", j.about(kind, quote[:39]), others, ""},
		arrival{"no quote", j.about(kind, nil), others, ""},
		arrival{"quote with an extension header", j.about(kind, behind), ours, ""},
		arrival{"quote of another address", j.about(kind, j.quoted(elsewhere)), others, ""},
		arrival{"quote of an echo reply", j.about(kind, reply), others, ""},
		arrival{"quote of a resting port", j.about(kind, j.quoted(rest)), ours, checksMore},
		arrival{"quote of IPv4", j.about(kind, put(0, 0x45)(slices.Clone(quote))), others, ""},
		arrival{"error of an unknown type", j.about(5, quote), others, ""},
		arrival{"error behind an extension header", extended(60)(j.about(kind, quote)), ours, ""})
}

// TestJudgeIPv6 is TestJudge for IPv6.
func TestJudgeIPv6(t *testing.T) {
	j := newJudgingOf(t, uplinks.IPv6)
	for _, list := range [][]arrival{j.portsV6(), j.extendedV6(), j.messagesV6(), j.errorsV6()} {
		for _, a := range list {
			t.Run(a.name, func(t *testing.T) { j.judge(t, a) })
		}
	}
}

// TestPrefixes: what is sent into a translated prefix goes to Go, but what is to an address that the programs know otherwise, and
// neighbour discovery.
func TestPrefixes(t *testing.T) {
	j := newJudgingOf(t, uplinks.IPv6)
	at := func(n uint32, bits int) netip.Prefix { return netip.PrefixFrom(j.addr(n).Netip(), bits).Masked() }
	for _, c := range []struct {
		prefixes  []netip.Prefix
		neighbour bool
	}{
		{nil, false}, {[]netip.Prefix{at(neighbour, 64)}, true}, {[]netip.Prefix{at(stranger, 64), at(neighbour, 48)}, true},
		{[]netip.Prefix{at(stranger, 48)}, false}, {[]netip.Prefix{at(outside, 64), at(neighbour, 128)}, true}, {nil, false},
	} {
		labtest.Must(t, j.SetPrefixes(c.prefixes))
		solicitation := framedV6(j.message(neighbourSolicitation, j.addr(stranger), j.addr(neighbour), 0, make([]byte, 16)))
		for _, e := range []struct {
			frame []byte
			want  bool
		}{
			{j.to(packet.ProtoTCP, neighbour, unsent), c.neighbour}, {extended(44)(j.to(packet.ProtoUDP, neighbour, unsent)), c.neighbour},
			{solicitation, false}, {j.to(packet.ProtoTCP, outside, unsent), false},
		} {
			if code, _ := run(t, j.ingress, e.frame, 0); (code == codeHit) != e.want {
				t.Errorf("prefixes %v: code %d, want Go to get it: %t, %x", c.prefixes, int32(code), e.want, e.frame)
			}
		}
	}
}
