package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
)

// passes waits for a packet that send causes on a device, and tells of it.
func (s half) passes(ns *lab.Namespace, device string, match func(*lab.Packet) bool, send func() error) (string, error) {
	c, err := ns.StartCapture(device, nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), lossLimit)
	defer cancel()
	p, err := c.AwaitAfter(ctx, func(p *lab.Packet) bool { return !p.Outgoing && p.IP != nil && match(p) }, send)
	_, also := c.Stop()
	if errors.Is(err, context.DeadlineExceeded) {
		return "nothing", also
	}
	if err != nil {
		return "", errors.Join(err, also)
	}
	return describePacket(p), also
}

// describePacket tells of a packet all that translating has no business with.
func describePacket(p *lab.Packet) string {
	text := fmt.Sprintf("from %s TOS %#x id %d %s TTL %d options %v %s", p.Src.Addr(), p.IP.TOS, p.IP.Id, p.IP.Flags, p.IP.TTL, p.IP.Options, p.Problem)
	switch {
	case p.TCP != nil:
		return fmt.Sprintf("%s SYN %t seq %d window %d options %v", text, p.TCP.SYN, p.TCP.Seq, p.TCP.Window, p.TCP.Options)
	case p.UDP != nil:
		return fmt.Sprintf("%s %q, checksum %t", text, p.Payload, p.UDP.Checksum != 0)
	}
	return fmt.Sprintf("%s %d bytes", text, len(p.Payload))
}

// unusual draws a header that is valid and seldom.
func unusual(r *rand.Rand) layers.IPv4 {
	h := layers.IPv4{TOS: uint8(r.Uint32()), Id: uint16(1 + r.IntN(1<<16-1)), Flags: layers.IPv4Flag(r.IntN(2)) * layers.IPv4DontFragment}
	if r.IntN(2) == 0 {
		h.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	}
	return h
}

// synStep sends the first packet of a connection with an unusual header, and looks at what comes out.
func synStep(r *rand.Rand) step {
	h, port, seq := unusual(r), uint16(20000+r.IntN(10000)), r.Uint32()
	return step{fmt.Sprintf("SYN: TOS %#x, id %d, %s, %d options", h.TOS, h.Id, h.Flags, len(h.Options)), func(s half) (string, error) {
		h, from, to := h, netip.AddrPortFrom(s.Hosts[0].Addr, port), netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho)
		b, err := segmentOf(&h, from, to, &layers.TCP{SYN: true, Seq: seq, Window: 4711,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}}}})
		if err != nil {
			return "", err
		}
		return s.passes(s.Internet, s.Uplinks[0].ISP.Name(), func(p *lab.Packet) bool { return p.Dst == to },
			func() error { return sendIP(s.lan, to.Addr(), b) })
	}}
}

// headerStep sends a datagram of a known session with an unusual header, out or in, and looks at what comes out.
func headerStep(r *rand.Rand) step {
	h, sum, in := unusual(r), r.IntN(2) == 0, r.IntN(2) == 0
	name := fmt.Sprintf("in %t: TOS %#x, id %d, %s, %d options, checksum %t", in, h.TOS, h.Id, h.Flags, len(h.Options), sum)
	return pairStep(name, func(s half, p pair) (string, error) {
		h, from, to := h, udpAddr(p.inside.LocalAddr()), udpAddr(p.server.LocalAddr())
		sender, receiver, device := s.lan, s.Internet, s.Uplinks[0].ISP.Name()
		if in {
			from, to = to, udpAddr(p.outside)
			sender, receiver, device = receiver, sender, lab.DeviceHost
		}
		b, err := datagramOf(&h, from, to, sum)
		if err != nil {
			return "", err
		}
		return s.passes(receiver, device, func(p *lab.Packet) bool { return p.UDP != nil && (p.Src == from || p.Dst == to) },
			func() error { return sendIP(sender, to.Addr(), b) })
	})
}

// datagramOf is a datagram with or without a checksum.
func datagramOf(h *layers.IPv4, from, to netip.AddrPort, sum bool) ([]byte, error) {
	udp := &layers.UDP{SrcPort: layers.UDPPort(from.Port()), DstPort: layers.UDPPort(to.Port())}
	b, err := packetOf(from.Addr(), to.Addr(), h, udp, gopacket.Payload("unusual"))
	if at := int(b[0]&15)*4 + 6; !sum {
		b[at], b[at+1] = 0, 0
	}
	return b, err
}

func segmentOf(h *layers.IPv4, from, to netip.AddrPort, tcp *layers.TCP) ([]byte, error) {
	h.Protocol, h.SrcIP, h.DstIP = layers.IPProtocolTCP, from.Addr().AsSlice(), to.Addr().AsSlice()
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(from.Port()), layers.TCPPort(to.Port())
	if err := tcp.SetNetworkLayerForChecksum(h); err != nil {
		return nil, err
	}
	return packetOf(from.Addr(), to.Addr(), h, tcp)
}

// strayStep sends a segment of a connection that nobody knows of, as after a restart, and wants to be told so.
func strayStep(r *rand.Rand) step {
	port, seq, ack := uint16(30000+r.IntN(2000)), r.Uint32(), r.Uint32()
	return step{"a stray segment", func(s half) (string, error) {
		from, to := netip.AddrPortFrom(s.Hosts[0].Addr, port), netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho)
		b, err := segmentOf(&layers.IPv4{}, from, to, &layers.TCP{ACK: true, Seq: seq, Ack: ack, Window: 4711})
		if err != nil {
			return "", err
		}
		seen, err := s.passes(s.lan, lab.DeviceHost, func(p *lab.Packet) bool { return p.Src == to && p.TCP != nil && p.TCP.RST && p.TCP.Seq == ack },
			func() error { return sendIP(s.lan, to.Addr(), b) })
		if err == nil && seen != "nothing" {
			seen = "a reset" // of the server or in its name
		}
		return seen, err
	}}
}

// timestampStep asks for the time by ICMP.
func timestampStep(r *rand.Rand) step {
	id := uint16(r.Uint32())
	return step{"a timestamp query", func(s half) (string, error) {
		query := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeTimestampRequest, 0), Id: id, Seq: 7}
		b, err := packetOf(s.Hosts[0].Addr, lab.ServerAddrs[0], &layers.IPv4{}, query, gopacket.Payload(make([]byte, 12)))
		if err != nil {
			return "", err
		}
		seen, err := s.passes(s.lan, lab.DeviceHost, func(p *lab.Packet) bool {
			return p.ICMP != nil && p.ICMP.TypeCode.Type() == layers.ICMPv4TypeTimestampReply && p.ICMP.Id == id
		}, func() error { return sendIP(s.lan, lab.ServerAddrs[0], b) })
		if err == nil && seen != "nothing" {
			seen = "the time"
		}
		return seen, err
	}}
}
