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

	IP       *layers.IPv4 // nil for other protocols
	TCP      *layers.TCP
	UDP      *layers.UDP
	ICMP     *layers.ICMPv4
	Src, Dst netip.AddrPort // the port is 0 where the protocol has none
	Payload  []byte         // of TCP, UDP or ICMP

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
	if p.IP == nil {
		return fmt.Sprintf("%d bytes, not IPv4 %s", len(p.Data), p.Problem)
	}
	return fmt.Sprintf("%s → %s %s id %d, %d bytes, partial=%t super=%t out=%t %s", p.Src, p.Dst, p.IP.Protocol, p.IP.Id,
		len(p.Data), p.Partial, p.Super, p.Outgoing, p.Problem)
}

func (p *Packet) decode() {
	first := layers.LayerTypeIPv4
	if p.ethernet {
		first = layers.LayerTypeEthernet
	} else if len(p.Data) > 0 && p.Data[0]>>4 != 4 {
		return
	}
	decoded := gopacket.NewPacket(p.Data, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	p.IP, _ = decoded.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if p.IP == nil {
		if eth, ok := decoded.LinkLayer().(*layers.Ethernet); !ok || eth.EthernetType == layers.EthernetTypeIPv4 {
			p.Problem = "malformed IPv4 header"
		}
		return
	}
	p.Src, p.Dst = addrPort(p.IP.SrcIP, 0), addrPort(p.IP.DstIP, 0)
	p.Fragment = p.IP.FragOffset != 0 || p.IP.Flags&layers.IPv4MoreFragments != 0
	if !p.Fragment {
		p.decodeTransport(decoded)
	}
	p.Problem = p.verify()
}

func (p *Packet) decodeTransport(decoded gopacket.Packet) {
	p.TCP, _ = decoded.Layer(layers.LayerTypeTCP).(*layers.TCP)
	p.UDP, _ = decoded.Layer(layers.LayerTypeUDP).(*layers.UDP)
	p.ICMP, _ = decoded.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	switch {
	case p.TCP != nil:
		p.Src, p.Dst = addrPort(p.IP.SrcIP, uint16(p.TCP.SrcPort)), addrPort(p.IP.DstIP, uint16(p.TCP.DstPort))
		p.Payload = p.TCP.Payload
	case p.UDP != nil:
		p.Src, p.Dst = addrPort(p.IP.SrcIP, uint16(p.UDP.SrcPort)), addrPort(p.IP.DstIP, uint16(p.UDP.DstPort))
		p.Payload = p.UDP.Payload
	case p.ICMP != nil:
		p.Payload = p.ICMP.Payload
	}
}

// addrPort is netip.AddrPortFrom for the decoder's types; an address that is none stays invalid.
func addrPort(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
