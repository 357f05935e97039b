package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestIPv6TableFull is TestTableFull over IPv6, whose table is its own: IPv4 has room.
func TestIPv6TableFull(t *testing.T) {
	t.Parallel()
	const room = 64
	w := beginV6(t, lab.Options{}, fmt.Sprintf("nat: {max_sessions_ipv6: %d}\n", room))
	testTableFull(t, w, room)
	for range room + 1 {
		labtest.Must(t, visitFor(w.lan, lab.ServerAddrs[0], visitPatience).err)
	}
}

// TestIPv6OpenRelay: a neighbour on a provider's segment gets nothing forwarded over IPv6, neither to the Internet nor to the LAN.
func TestIPv6OpenRelay(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	for _, device := range []string{"wan1", "wan2", "tapgw0", lab.DeviceLAN} {
		watch(t, w.Gateway, device, "relayed", func(p *lab.Packet) bool {
			return p.Outgoing && marked(p) && p.V6 != nil && p.V6.FlowLabel == foreignID
		})
	}
	first := w.Uplinks[0]
	link := ethernet(first.Link.Far.MAC, first.Link.Near.MAC)
	link.EthernetType = layers.EthernetTypeIPv6
	header := gopacket.NewSerializeBuffer()
	labtest.Must(t, link.SerializeTo(header, gopacket.SerializeOptions{}))
	neighbour := first.PrefixV6().Addr().Next().Next().Next()
	stranger := netip.MustParseAddr("2001:db8:77::1")
	sources := []netip.Addr{w.family.provider(first), neighbour, stranger, w.Hosts[0].AddrV6, w.Uplinks[1].AddrV6()}
	for _, from := range sources {
		for _, to := range []netip.Addr{w.family.servers[0], w.Hosts[0].AddrV6} {
			for _, transport := range transportsV6(marker) {
				b := packetV6(t, ip6(from, to), nil, transport...)
				inject(t, first.ISP, lab.DeviceCustomer, append(header.Bytes()[:14:14], b...))
			}
		}
	}
	// What comes after them has passed all of them.
	_, err := first.ISP.Ping(labtest.Context(t), first.AddrV6())
	labtest.Must(t, err)
	for _, ns := range []*lab.Namespace{w.lan, w.Gateway} {
		_, err := ns.WhoAmI(labtest.Context(t), w.family.servers[0])
		labtest.Must(t, err)
	}
}

// transportsV6 is transports for IPv6.
func transportsV6(payload []byte) [][]gopacket.SerializableLayer {
	echo := func(kind uint8) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)},
			gopacket.Payload(append([]byte{0, 1, 0, 1}, payload...))}
	}
	return [][]gopacket.SerializableLayer{
		{&layers.TCP{SrcPort: 4001, DstPort: 7001, SYN: true, FIN: true, RST: true}, gopacket.Payload(payload)},
		{&layers.TCP{SrcPort: 4000, DstPort: 7001, SYN: true, Window: 1000}, gopacket.Payload(payload)},
		{&layers.UDP{SrcPort: 4000, DstPort: 7002}, gopacket.Payload(payload)},
		echo(layers.ICMPv6TypeEchoRequest), echo(layers.ICMPv6TypeEchoReply),
	}
}

// TestIPv6SwitchedOff: with tap.ipv6 off IPv6 is left to the host's own routes, from the addresses that it has.
func TestIPv6SwitchedOff(t *testing.T) {
	t.Parallel()
	g, topology, _ := settledOn(t, lab.Options{IPv6: true}, datapath(t), "tap: {ipv6: false}\n")
	for range 4 {
		outside, err := topology.Gateway.WhoAmI(labtest.Context(t), lab.ServerAddrsV6[0])
		labtest.Must(t, err)
		if outside.Addr() != topology.Uplinks[0].AddrV6() && outside.Addr() != topology.Uplinks[1].AddrV6() {
			t.Errorf("seen as %s", outside)
		}
	}
	list, err := g.client.Sessions(t.Context(), api.Filter{})
	labtest.Must(t, err)
	for _, s := range list {
		if s.Remote.Addr() == lab.ServerAddrsV6[0] {
			t.Errorf("a session: %+v", s)
		}
	}
}
