package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
	"tapgw/internal/packet"
)

const fragNeeded = layers.ICMPv4CodeFragmentationNeeded

// tell makes an ICMP error of somebody in the Internet about a packet that left, of which it quotes the first bytes.
func (r *rawWorld) tell(sent *lab.Packet, code uint8, mtu uint16, change func(quoted []byte)) []byte {
	r.t.Helper()
	quoted := slices.Concat(sent.IP.Contents, sent.IP.Payload[:8])
	change(quoted)
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, code), Seq: mtu}
	return r.packet(rawOther, sent.Src.Addr(), icmp, gopacket.Payload(quoted))
}

// asItWas leaves a quote as it is.
func asItWas([]byte) {}

// numbered has a quote be of a TCP segment with another number.
func numbered(seq uint32) func([]byte) {
	return func(quoted []byte) {
		copy(quoted[len(quoted)-4:], []byte{byte(seq >> 24), byte(seq >> 16), byte(seq >> 8), byte(seq)})
	}
}

// long has a quote be of a packet of 1500 bytes.
func long(quoted []byte) {
	ip := quoted[:20]
	ip[2], ip[3], ip[10], ip[11] = 1500>>8, 1500&255, 0, 0
	sum := ^packet.Fold(packet.Sum(0, ip))
	ip[10], ip[11] = byte(sum>>8), byte(sum)
}

// TestFault35_ForgedFragNeeded: an error that tells a tiny path MTU, or quotes a segment that the inside cannot have under way,
// does not arrive; genuine ones do.
func TestFault35_ForgedFragNeeded(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	told := func(what string, sent *lab.Packet, inside netip.AddrPort, code uint8, mtu uint16, change func([]byte)) {
		t.Helper()
		p := r.in(r.tell(sent, code, mtu, change))
		if p.ICMP == nil || p.Dst.Addr() != inside.Addr() || p.ICMP.Seq != mtu || be16(p.ICMP.Payload[20:]) != inside.Port() {
			t.Errorf("%s arrived as %s", what, p)
		}
	}
	before := r.metric(forgedErrors)
	forged := 0.0
	refused := func(what string, sent *lab.Packet, code uint8, mtu uint16, change func([]byte)) {
		t.Helper()
		forged++
		r.dropped(what, r.tell(sent, code, mtu, change))
	}

	inside := netip.AddrPortFrom(rawHosts[0], 4000)
	_, datagram := r.udp(inside, netip.AddrPortFrom(rawRemote, 5300))
	for _, mtu := range []uint16{68, 296, 551} {
		refused(fmt.Sprint("an MTU of ", mtu), datagram, fragNeeded, mtu, long)
	}
	refused("no MTU, about a small packet,", datagram, fragNeeded, 0, asItWas)
	told("no MTU, about a large packet,", datagram, inside, fragNeeded, 0, long)
	for _, mtu := range []uint16{552, 1280, 1492} {
		told(fmt.Sprint("an MTU of ", mtu), datagram, inside, fragNeeded, mtu, long)
	}
	told("port unreachable", datagram, inside, layers.ICMPv4CodePort, 0, asItWas)

	c := r.talk(4001, 80)
	told("host unreachable", c.say(tSYN, 100, 0, ""), c.inside, layers.ICMPv4CodeHost, 0, asItWas)
	c.hear(tSYN|tACK, 900, 101, "")
	c.say(tACK, 101, 901, "")
	segment := c.say(tACK, 101, 901, "question")
	for _, code := range []uint8{fragNeeded, layers.ICMPv4CodePort, layers.ICMPv4CodeHost} {
		told("an error about what is under way", segment, c.inside, code, 1400, asItWas)
		for _, seq := range []uint32{0, 99, 110, 101 + 1<<20, 101 + 1<<31} {
			refused(fmt.Sprint("one about number ", seq), segment, code, 1400, numbered(seq))
		}
	}
	refused("an MTU of 68 with the right number", segment, fragNeeded, 68, asItWas)
	c.hear(tACK, 901, 109, "answer")
	refused("one about what has arrived", segment, fragNeeded, 1400, asItWas)
	told("one about the next acknowledgement", c.say(tACK, 109, 907, ""), c.inside, fragNeeded, 1400, asItWas)
	c.expect("established")
	eventually(t, "the drops", func() bool { return r.metric(forgedErrors)-before == forged })
}

const forgedErrors = `tapgw_packets_dropped_total{reason="forged_icmp"}`
