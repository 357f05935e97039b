package e2e

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab/labtest"
)

// ip6 is ip4 for IPv6.
func ip6(src, dst netip.Addr) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, FlowLabel: foreignID, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// packetV6 is an IPv6 packet with right lengths and checksums; extensions stand before the transport layer, each {next header,
// length, …} as extend makes them.
func packetV6(t testing.TB, ip *layers.IPv6, extensions []extension, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	switch transport := body[0].(type) {
	case *layers.UDP:
		ip.NextHeader = layers.IPProtocolUDP
		labtest.Must(t, transport.SetNetworkLayerForChecksum(ip))
	case *layers.TCP:
		ip.NextHeader = layers.IPProtocolTCP
		labtest.Must(t, transport.SetNetworkLayerForChecksum(ip))
	case *layers.ICMPv6:
		ip.NextHeader = layers.IPProtocolICMPv6
		labtest.Must(t, transport.SetNetworkLayerForChecksum(ip))
	}
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, options, body...))
	payload := bytes.Clone(buf.Bytes())
	for i := len(extensions) - 1; i >= 0; i-- {
		payload = append(append([]byte{byte(ip.NextHeader)}, extensions[i].rest...), payload...)
		ip.NextHeader = extensions[i].number
	}
	labtest.Must(t, gopacket.SerializeLayers(buf, options, ip, gopacket.Payload(payload)))
	return bytes.Clone(buf.Bytes())
}

// extension is a header before that of the transport: its number, and what follows its first byte.
type extension struct {
	number layers.IPProtocol
	rest   []byte
}

// udpBetween is a header of UDP.
func udpBetween(src, dst netip.AddrPort) *layers.UDP {
	return &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
}

// fragmentsV6 is fragments for IPv6.
func fragmentsV6(t testing.TB, src, dst netip.AddrPort, id uint32, payload string) (list [][]byte) {
	t.Helper()
	whole := packetV6(t, ip6(src.Addr(), dst.Addr()), nil, udpBetween(src, dst), gopacket.Payload(payload))
	data := whole[40:]
	for at := 0; at < len(data); at += 1440 {
		end, more := min(at+1440, len(data)), byte(1)
		if end == len(data) {
			more = 0
		}
		header := extension{nextFragment, []byte{0, byte(at >> 8), byte(at) | more, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}}
		h := ip6(src.Addr(), dst.Addr())
		h.NextHeader = layers.IPProtocolUDP
		list = append(list, packetV6(t, h, []extension{header}, gopacket.Payload(data[at:end])))
	}
	return list
}
