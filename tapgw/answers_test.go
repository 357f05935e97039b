package tapgw

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"

	"tapgw/internal/packet"
	"tapgw/nat"
)

// TestReset is what the inside gets for a segment of no session: its own stack must believe it (RFC 9293 §3.5.2).
func TestReset(t *testing.T) {
	w := newWorld(t)
	for flags, want := range map[uint8]layers.TCP{
		ack:              {RST: true, Seq: 2000},
		ack | packet.FIN: {RST: true, Seq: 2000},
		synAck:           {RST: true, Seq: 2000},
		packet.PSH:       {RST: true, ACK: true, Ack: 1000 + 4},
		packet.FIN:       {RST: true, ACK: true, Ack: 1000 + 4 + 1},
	} {
		res := w.out(tcpFrame(t, inside, 4000, server, 80, flags, "data"))
		w.expect(res, Drop, NotSYN)
		s := look(t, res.Reply)
		got := s.tcp
		if s.src() != server || s.dst() != inside || got.SrcPort != 80 || got.DstPort != 4000 {
			t.Errorf("flags %#x: from %s:%s to %s:%s", flags, s.ip.SrcIP, got.SrcPort, s.ip.DstIP, got.DstPort)
		}
		if got.RST != want.RST || got.ACK != want.ACK || got.Seq != want.Seq || got.Ack != want.Ack || got.SYN || got.FIN {
			t.Errorf("flags %#x: reset %+v, want %+v", flags, got, want)
		}
		if [6]byte(s.eth.DstMAC) != tapMAC || [6]byte(s.eth.SrcMAC) != gatewayMAC {
			t.Errorf("Ethernet %s to %s", s.eth.SrcMAC, s.eth.DstMAC)
		}
	}
}

// TestErrorsOfTheInside: an error about a packet delivered is translated for the remote (RFC 5508 REQ-5).
func TestErrorsOfTheInside(t *testing.T) {
	w := newWorld(t)
	port, _ := w.open(udpFrame(t, inside, 4000, server, 53, "x"))
	b := errorFrame(t, inside, server, udpFrame(t, server, 53, inside, 4000, "x"))
	s := w.sent(w.out(b), b, 1)
	q := quotedOf(t, s)
	if s.src() != wan1 || s.dst() != server || q.dst() != wan1 || uint16(q.udp.DstPort) != port || q.src() != server {
		t.Errorf("%v quoting %v %v", s.ip, q.ip, q.udp)
	}
}

// TestErrorsOfTheOutside: an error about a packet sent is translated for the inside host, its source stays (RFC 5508 REQ-4).
func TestErrorsOfTheOutside(t *testing.T) {
	w := newWorld(t)
	first := tcpFrame(t, inside, 4000, server, 80, syn, "")
	sent := clone(first)
	w.sent(w.out(sent), sent, 1)
	b := errorFrame(t, router, wan1, sent)
	s := w.delivered(w.in(b, 1), b)
	if q := quotedOf(t, s); s.src() != router || s.dst() != inside || string(q.data) != string(look(t, first).data) {
		t.Errorf("%v quoting %v", s.ip, q.ip)
	}
}

// quotedOf decodes the packet that an ICMP error quotes.
func quotedOf(t *testing.T, s *seen) *seen {
	t.Helper()
	b := append(make([]byte, packet.VnetLen+packet.EthernetLen), s.icmp.Payload...)
	b[packet.VnetLen+12] = 8
	return look(t, b)
}

// TestARP: the router behind the TAP exists, and nobody else does.
func TestARP(t *testing.T) {
	w := newWorld(t)
	host := netip.AddrFrom4([4]byte{198, 18, 73, 1})
	ask := func(op arp.Operation, target netip.Addr) Result {
		p, err := arp.NewPacket(op, tapMAC[:], host, make([]byte, 6), target)
		if err != nil {
			t.Fatal(err)
		}
		return w.out(arpFrame(p, ethernet.Broadcast, tapMAC[:]))
	}
	res := ask(arp.OperationRequest, gatewayIP)
	w.expect(res, Ignore, NoReason)
	p := gopacket.NewPacket(res.Reply[packet.VnetLen:], layers.LayerTypeEthernet, gopacket.Default)
	reply, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok || reply.Operation != layers.ARPReply || [6]byte(reply.SourceHwAddress) != gatewayMAC || [6]byte(reply.DstHwAddress) != tapMAC ||
		netip.AddrFrom4([4]byte(reply.SourceProtAddress)) != gatewayIP || netip.AddrFrom4([4]byte(reply.DstProtAddress)) != host {
		t.Errorf("reply %v", p)
	}
	for _, res := range []Result{ask(arp.OperationRequest, host), ask(arp.OperationReply, gatewayIP)} {
		if res.Verdict != Ignore || res.Reply != nil {
			t.Errorf("answered %+v", res)
		}
	}
	w.expect(w.out(typed(make([]byte, packet.VnetLen+packet.EthernetLen+8), 0x0806)), Drop, BadPacket)
}

// TestAnswersAreLimited: a flood of refused packets is not answered packet by packet.
func TestAnswersAreLimited(t *testing.T) {
	w := newWorld(t)
	answered := func(now nat.Tick) (n int) {
		for range 3 * perTick {
			if w.g.Outbound(tcpFrame(t, inside, 4000, server, 80, ack, ""), now).Reply != nil {
				n++
			}
		}
		return n
	}
	for i := range nat.Tick(3) {
		if n := answered(start + i); n != perTick {
			t.Errorf("%d answers in a tick, want %d", n, perTick)
		}
	}
}
