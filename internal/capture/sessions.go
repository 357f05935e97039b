package capture

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"tapgw/api"
	"tapgw/internal/packet"
)

// Sessions chooses the packets of sessions that a daemon lists. It asks for the list again where it meets a flow that it does not
// know.
type Sessions struct {
	List func(ctx context.Context) ([]api.Session, error)
	// Wanted tells which of them count.
	Wanted func(api.Session) bool
	// All takes every packet after the translation, of sessions or not.
	All bool

	flows  map[flow]bool      // of wanted sessions, on their side
	doubt  map[flow]time.Time // of no session that is known, since when
	others map[flow]bool      // of none, until they are forgotten
	forgot time.Time
}

// flow is what packets of a session have in common on one side of the translation. Of protocols without ports these are 0.
type flow struct {
	side          Side
	proto         string
	local, remote netip.AddrPort
}

// names are the protocols that sessions call by name.
var names = map[uint8]string{
	packet.ProtoTCP: "tcp", packet.ProtoUDP: "udp", packet.ProtoICMP: "icmp", packet.ProtoICMPv6: "icmpv6", packet.ProtoGRE: "gre",
	50: "esp", 51: "ah", packet.ProtoDCCP: "dccp", 132: "sctp", packet.ProtoUDPLite: "udplite",
}

// forgetAfter is how long a flow of no wanted session is left out without asking again.
const forgetAfter = 2 * time.Second

// Choose looks for the session of a packet.
func (s *Sessions) Choose(p *Packet) Choice {
	if s.All && p.Point.Side == After {
		return Yes
	}
	d, ok := decode(p)
	if !ok {
		return No
	}
	choice := No
	for _, f := range flowsOf(p.Point.Side, d) {
		if s.flows[f] {
			return Yes
		}
		if !s.others[f] {
			choice = Undecided
			s.wonder(f, p.Time)
		}
	}
	return choice
}

// wonder remembers a flow to ask for.
func (s *Sessions) wonder(f flow, since time.Time) {
	if s.doubt == nil {
		s.doubt = map[flow]time.Time{}
	}
	if _, already := s.doubt[f]; !already {
		s.doubt[f] = since
	}
}

// Settle reads the list again. A flow that is of no session for some time is nobody's, until that is forgotten.
func (s *Sessions) Settle(ctx context.Context) error {
	list, err := s.List(ctx)
	if err != nil {
		return err
	}
	if s.flows == nil {
		s.flows = map[flow]bool{} // of sessions that have ended too, whose last packets may still come
	}
	for _, one := range list {
		if s.Wanted(one) {
			s.flows[flow{Before, one.Proto, one.Inside, one.Remote}.plain()] = true
			s.flows[flow{After, one.Proto, one.Outside, one.Remote}.plain()] = true
		}
	}
	if s.others == nil || time.Since(s.forgot) > forgetAfter {
		s.others, s.forgot = map[flow]bool{}, time.Now()
	}
	for f, since := range s.doubt {
		if time.Since(since) > patience {
			s.others[f] = true
			delete(s.doubt, f)
		}
	}
	return nil
}

// plain leaves out the port of an ICMP session's remote, which packets do not tell.
func (f flow) plain() flow {
	if f.proto == names[packet.ProtoICMP] || f.proto == names[packet.ProtoICMPv6] {
		f.remote = netip.AddrPortFrom(f.remote.Addr(), 0)
	}
	return f
}

func decode(p *Packet) (d packet.Packet, ok bool) {
	switch {
	case !p.Point.HeaderLess:
		d.Decode(p.Data)
	case len(p.Data) > 0 && p.Data[0]>>4 == 6:
		d.DecodeIPv6(p.Data, 0)
	default:
		d.DecodeIPv4(p.Data, 0)
	}
	return d, d.Kind > packet.ARP
}

// flowsOf are the flows that a packet may be of, as it goes out or comes in.
func flowsOf(side Side, d packet.Packet) []flow {
	name, known := names[d.Proto]
	if !known {
		name = strconv.Itoa(int(d.Proto))
	}
	src, dst := netip.AddrPortFrom(d.Src.Netip(), d.SrcPort), netip.AddrPortFrom(d.Dst.Netip(), d.DstPort)
	return []flow{flow{side, name, src, dst}.plain(), flow{side, name, dst, src}.plain()}
}
