package fastpath

import (
	"testing"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// otherID is the uplink beside the one that receives.
const otherID = uplinkID + 1

// openElsewhere gives the other uplink addresses and sessions.
func (j *judging) openElsewhere(t *testing.T) {
	t.Helper()
	arrays := j.table.Prepare(otherID, []packet.Addr{j.addr(foreign)})
	arrays = append(arrays, nat.PortArrays{Outside: j.addr(foreigner), TCP: nat.WholeAddress, UDP: nat.WholeAddress})
	labtest.Must(t, j.SetAddresses(otherID, j.family, arrays))
	for proto, tr := range map[uint8]*nat.Translation{packet.ProtoUDP: &j.otherUDP, j.icmp(): &j.otherAsk, greProto: &j.otherGRE} {
		k := nat.Key{Inside: j.addr(0x0a000003), Remote: j.addr(0x08080808), Proto: proto}
		if proto != greProto {
			k.InsidePort = 50000
		}
		if proto == packet.ProtoUDP {
			k.RemotePort = 443
		}
		ref, err := j.table.Open(k, nat.Binding{Uplink: otherID, Generation: generation, Addresses: []packet.Addr{j.addr(foreign)}}, offset)
		labtest.Must(t, err)
		*tr = j.table.Translation(ref)
	}
}

// toOther are packets to addresses of an uplink that did not receive them.
func (j *judging) toOther() []arrival {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	reply := func(id uint16) []byte {
		return framed(ipv4(packet.ProtoICMP, j.otherAsk.Remote.V4(), foreign, nil, message(packet.ICMPEchoReply, uint32(id)<<16|1, nil)))
	}
	about := func(tr nat.Translation) []byte {
		return framed(ipv4(packet.ProtoICMP, stranger, foreign, nil, message(packet.ICMPUnreachable, 0, quoted(tr))))
	}
	hosts := j.otherUDP
	hosts.OutsidePort = unsent
	return []arrival{
		{"UDP, mapped elsewhere", to(udp, foreign, j.otherUDP.OutsidePort), ours, ""},
		{"TCP, mapped elsewhere for UDP", to(tcp, foreign, j.otherUDP.OutsidePort), others, ""},
		{"UDP, free elsewhere", to(udp, foreign, unsent), others, ""},
		{"UDP, mapped here, not elsewhere", to(udp, foreign, j.tcp.OutsidePort), others, ""},
		{"UDP, service elsewhere", to(udp, foreign, service), served, ""},
		{"echo reply, elsewhere", reply(j.otherAsk.OutsidePort), ours, ""},
		{"echo reply, host's elsewhere", reply(j.otherAsk.OutsidePort + 1), others, ""},
		{"echo request, elsewhere", framed(ipv4(packet.ProtoICMP, stranger, foreign, nil, message(packet.ICMPEcho, 1<<16, nil))), others, ""},
		{"error, elsewhere", about(j.otherUDP), ours, ""},
		{"error of a session, elsewhere", framed(ipv4(packet.ProtoICMP, stranger, foreign, nil, message(packet.ICMPTimeExceeded, 0, quoted(j.otherGRE)))), ours, ""},
		{"error, host's elsewhere", about(hosts), others, ""},
		{"GRE elsewhere", j.pair(greProto, j.otherGRE.Remote.V4(), foreign), ours, ""},
		{"GRE of nobody elsewhere", j.pair(greProto, stranger, foreign), others, ""},
		{"fragment, elsewhere", fragment(to(udp, foreign, j.otherUDP.OutsidePort), 0x2000), ours, ""},
		{"fragment, free elsewhere", fragment(to(udp, foreign, unsent), 0x2000), ours, checksMore},
		{"whole elsewhere", to(tcp, foreigner, unsent), ours, ""},
	}
}

// TestAddressOfTwoUplinks: when one of them loses it, what comes by a third is judged by the other.
func TestAddressOfTwoUplinks(t *testing.T) {
	j := newJudging(t)
	labtest.Must(t, j.SetAddresses(otherID+1, uplinks.IPv4, []nat.PortArrays{{Outside: packet.IPv4(foreign), TCP: -1, UDP: -1}}))
	for _, handed := range []bool{false, true} {
		if code, _ := run(t, j.ingress, to(packet.ProtoTCP, foreign, unsent), 0); (code == codeHit) != handed {
			t.Errorf("handed to Go: %v", !handed)
		}
		labtest.Must(t, j.SetAddresses(otherID, uplinks.IPv4, nil))
	}
}
