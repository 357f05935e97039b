package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Packet is one captured frame, decoded by gopacket.
type Packet struct {
	Outgoing bool   // leaves by the device
	Data     []byte // from the link-layer header, or from the IP header on a header-less device
	Super    bool   // carries several segments
	SegSize  int    // payload of each, bytes
	Partial  bool   // the transport checksum is left to the device
	Fragment bool
	Problem  string // why the packet is bad, "" if it is good

	IP       *layers.IPv4      // nil for other protocols
	V6       *layers.IPv6      // nil for other protocols
	Proto    layers.IPProtocol // of what IP carries, behind the extension headers of IPv6
	Segment  []byte            // what IP carries, with its header
	TCP      *layers.TCP
	UDP      *layers.UDP
	ICMP     *layers.ICMPv4
	ICMPv6   *layers.ICMPv6
	Src, Dst netip.AddrPort // the port is 0 where the protocol has none
	Payload  []byte         // of TCP and UDP; of ICMP what is behind its first eight bytes

	ethernet bool
}

// Bits of struct virtio_net_hdr (virtio 1.2 §5.1.6).
const (
	vnetNeedsCsum = 1
	gsoNone       = 0
)

// newPacket decodes buf in place: a virtio header and a frame.
func newPacket(buf []byte, ll *unix.SockaddrLinklayer) *Packet {
	p := &Packet{Outgoing: ll.Pkttype == unix.PACKET_OUTGOING, ethernet: ll.Hatype != unix.ARPHRD_NONE}
	if len(buf) < vnetLen {
		p.Problem = "shorter than its virtio header"
		return p
	}
	vnet, frame := buf[:vnetLen], buf[vnetLen:]
	p.Data = frame
	p.Partial = vnet[0]&vnetNeedsCsum != 0
	p.Super = vnet[1] != gsoNone
	p.SegSize = int(binary.LittleEndian.Uint16(vnet[4:]))
	p.decode()
	return p
}

// clone decodes a copy, because the original lies in the reader's buffer.
func (p *Packet) clone() *Packet {
	c := &Packet{Outgoing: p.Outgoing, Data: bytes.Clone(p.Data), Super: p.Super, SegSize: p.SegSize, Partial: p.Partial,
		ethernet: p.ethernet}
	c.decode()
	return c
}

// String is one line for failure messages.
func (p *Packet) String() string {
	var id int
	switch {
	case p.IP != nil:
		id = int(p.IP.Id)
	case p.V6 != nil:
		id = int(p.V6.FlowLabel)
	default:
		return fmt.Sprintf("%d bytes, not IP %s", len(p.Data), p.Problem)
	}
	return fmt.Sprintf("%s → %s %s id %d, %d bytes, partial=%t super=%t out=%t %s", p.Src, p.Dst, p.Proto, id,
		len(p.Data), p.Partial, p.Super, p.Outgoing, p.Problem)
}

func (p *Packet) decode() {
	first := layers.LayerTypeIPv4
	switch {
	case p.ethernet:
		first = layers.LayerTypeEthernet
	case len(p.Data) > 0 && p.Data[0]>>4 == 6:
		first = layers.LayerTypeIPv6
	case len(p.Data) > 0 && p.Data[0]>>4 != 4:
		return
	}
	decoded := gopacket.NewPacket(p.Data, first, lazily)
	switch ip := decoded.NetworkLayer().(type) {
	case *layers.IPv4:
		p.decodeV4(ip, decoded)
	case *layers.IPv6:
		b := p.Data
		if link := decoded.LinkLayer(); link != nil {
			b = link.LayerPayload()
		}
		p.decodeV6(ip, b)
	default:
		eth, ok := decoded.LinkLayer().(*layers.Ethernet)
		if !ok || eth.EthernetType == layers.EthernetTypeIPv4 || eth.EthernetType == layers.EthernetTypeIPv6 {
			p.Problem = "malformed IP header"
		}
	}
}

var lazily = gopacket.DecodeOptions{Lazy: true, NoCopy: true}

func (p *Packet) decodeV4(ip *layers.IPv4, decoded gopacket.Packet) {
	p.IP, p.Proto, p.Segment = ip, ip.Protocol, ip.Payload
	p.Src, p.Dst = addrPort(ip.SrcIP), addrPort(ip.DstIP)
	p.Fragment = ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0
	if !p.Fragment {
		p.decodeTransport(decoded)
	}
	p.Problem = p.verify()
}

func (p *Packet) decodeTransport(decoded gopacket.Packet) {
	p.TCP, _ = decoded.Layer(layers.LayerTypeTCP).(*layers.TCP)
	p.UDP, _ = decoded.Layer(layers.LayerTypeUDP).(*layers.UDP)
	p.ICMP, _ = decoded.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	p.ICMPv6, _ = decoded.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	switch {
	case p.TCP != nil:
		p.setPorts(uint16(p.TCP.SrcPort), uint16(p.TCP.DstPort))
		p.Payload = p.TCP.Payload
	case p.UDP != nil:
		p.setPorts(uint16(p.UDP.SrcPort), uint16(p.UDP.DstPort))
		p.Payload = p.UDP.Payload
	case p.ICMP != nil:
		p.Payload = p.ICMP.Payload
	case p.ICMPv6 != nil && len(p.Segment) >= icmpHeader:
		p.Payload = p.Segment[icmpHeader:]
	}
}

// icmpHeader is type, code, checksum, and four bytes that depend on the type.
const icmpHeader = 8

func (p *Packet) setPorts(src, dst uint16) {
	p.Src, p.Dst = netip.AddrPortFrom(p.Src.Addr(), src), netip.AddrPortFrom(p.Dst.Addr(), dst)
}

// addrPort is an address of the decoder without a port; one that is none stays invalid.
func addrPort(ip []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), 0)
}
