package tapgw

import (
	"net"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"

	"tapgw/internal/packet"
)

// answerARP answers a request for the imaginary router's address (RFC 826); every other ARP frame is ignored. The host
// has a permanent neighbour entry too: this is for whoever deletes it, and for tools that ask.
func (g *Gateway) answerARP(frame []byte) Result {
	var eth ethernet.Frame
	if err := eth.UnmarshalBinary(frame); err != nil {
		return g.drop(BadPacket)
	}
	var req arp.Packet
	if err := req.UnmarshalBinary(eth.Payload); err != nil {
		return g.drop(BadPacket)
	}
	if req.Operation != arp.OperationRequest || req.TargetIP != g.cfg.GatewayIP {
		return Result{Verdict: Ignore}
	}
	mac := net.HardwareAddr(g.cfg.GatewayMAC[:])
	reply, err := arp.NewPacket(arp.OperationReply, mac, req.TargetIP, req.SenderHardwareAddr, req.SenderIP)
	if err != nil {
		return g.drop(BadPacket)
	}
	return Result{Verdict: Ignore, Reply: arpFrame(reply, req.SenderHardwareAddr, mac)}
}

// arpFrame puts an ARP packet into a buffer for the TAP; nil when it cannot be encoded.
func arpFrame(p *arp.Packet, dst, src net.HardwareAddr) []byte {
	body, err := p.MarshalBinary()
	if err != nil {
		return nil
	}
	f := ethernet.Frame{Destination: dst, Source: src, EtherType: ethernet.EtherTypeARP, Payload: body}
	b, err := f.MarshalBinary()
	if err != nil {
		return nil
	}
	return append(make([]byte, packet.VnetLen), b...)
}
