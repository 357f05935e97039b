package lab_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

var serverV6 = lab.ServerAddrsV6[0]

// TestIPv6EndToEnd: the servers answer the gateway over IPv6 by its better uplink, and the capture finds every checksum right.
func TestIPv6EndToEnd(t *testing.T) {
	topo := labtest.Build(t, lab.Options{IPv6: true, Uplinks: make([]lab.UplinkOptions, 1)})
	labtest.Servers(t, topo)
	u := topo.Uplinks[0]
	c, err := topo.Gateway.StartCapture(u.Device, nil)
	labtest.Must(t, err)
	ctx := labtest.Context(t)
	for name, f := range map[string]func() (lab.Transfer, error){
		"download":      func() (lab.Transfer, error) { return topo.Gateway.Download(ctx, serverV6, 1<<20) },
		"upload":        func() (lab.Transfer, error) { return topo.Gateway.Upload(ctx, serverV6, 1<<20) },
		"bulk download": func() (lab.Transfer, error) { return topo.Gateway.BulkDownload(ctx, serverV6, 1, 1<<20) },
	} {
		if got, err := f(); err != nil || got.Bytes != 1<<20 {
			t.Errorf("%s: %d bytes, %v", name, got.Bytes, err)
		}
	}
	conn, err := topo.Gateway.ListenPacket("udp6", "[::]:0")
	labtest.Must(t, err)
	defer conn.Close()
	for _, size := range []int{10, 4000} {
		seen, err := lab.AskUDP(ctx, conn, serverV6, strings.Repeat("x", size))
		if err != nil || seen.Addr() != u.AddrV6() {
			t.Errorf("%d bytes: seen as %s, %v", size, seen, err)
		}
	}
	_, err = topo.Gateway.Ping(ctx, serverV6)
	labtest.Must(t, err)
	expectOutside(t, topo.Gateway, serverV6, u.AddrV6())
	r, err := c.Stop()
	labtest.Must(t, err)
	expectGood(t, r)
	if r.IPv6 < 100 || r.Fragments < 2 || r.IPv4 != 0 {
		t.Errorf("%d packets of IPv6, %d fragments, %d packets of IPv4", r.IPv6, r.Fragments, r.IPv4)
	}
}

// TestProviderDropsForeignSourcesV6: an address of one provider does not get out by another.
func TestProviderDropsForeignSourcesV6(t *testing.T) {
	topo := labtest.Build(t, lab.Options{IPv6: true})
	labtest.Must(t, topo.Uplinks[0].RemoveRouterV6())
	link, err := topo.Gateway.Handle().LinkByName("lo")
	labtest.Must(t, err)
	foreign := &netlink.Addr{IPNet: netlink.NewIPNet(topo.Uplinks[0].AddrV6().AsSlice())}
	labtest.Must(t, topo.Gateway.Handle().AddrAdd(link, foreign))
	awaitAddress(t, topo.Gateway, "lo", func(a netlink.Addr) bool { return addrOf(a) == topo.Uplinks[0].AddrV6() })
	conn, err := topo.Gateway.ListenPacket("udp6", netip.AddrPortFrom(topo.Uplinks[0].AddrV6(), 0).String())
	labtest.Must(t, err)
	defer conn.Close()
	c, err := topo.Uplinks[1].ISP.StartCapture(lab.DeviceCustomer, nil)
	labtest.Must(t, err)
	away, err := topo.Uplinks[1].ISP.StartCapture(lab.DeviceBackbone, nil)
	labtest.Must(t, err)
	isOurs := func(p *lab.Packet) bool { return p.UDP != nil && p.V6 != nil }
	_, err = c.AwaitAfter(labtest.Context(t), isOurs, func() error {
		_, err := conn.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(serverV6, 9)))
		return err
	})
	labtest.Must(t, err)
	_, err = topo.Gateway.Ping(labtest.Context(t), serverV6) // comes behind it
	labtest.Must(t, err)
	for _, c := range []*lab.Capture{c, away} {
		r, err := c.Stop()
		labtest.Must(t, err)
		if want := c != away; want != (r.UDP == 1) {
			t.Errorf("%d datagrams", r.UDP)
		}
	}
}

// TestAdvertise: a host makes itself addresses of the prefixes that its router tells, and gives up what that takes back.
func TestAdvertise(t *testing.T) {
	topo := labtest.Build(t, lab.Options{IPv6: true, Uplinks: make([]lab.UplinkOptions, 1)})
	u := topo.Uplinks[0]
	labtest.Must(t, u.RemoveRouterV6())
	second, err := u.Delegate()
	labtest.Must(t, err)
	const life = time.Hour
	labtest.Must(t, u.Advertise(life, lab.AdvertisedPrefix{Prefix: u.PrefixV6(), Preferred: life, Valid: life}))
	awaitAddress(t, topo.Gateway, u.Device, func(a netlink.Addr) bool { return u.PrefixV6().Contains(addrOf(a)) && a.PreferedLft > 0 })
	_, err = topo.Gateway.Ping(labtest.Context(t), serverV6)
	labtest.Must(t, err)
	labtest.Must(t, u.Advertise(life, lab.AdvertisedPrefix{Prefix: second, Preferred: life, Valid: life},
		lab.AdvertisedPrefix{Prefix: u.PrefixV6(), Valid: life}))
	awaitAddress(t, topo.Gateway, u.Device, func(a netlink.Addr) bool { return second.Contains(addrOf(a)) })
	awaitAddress(t, topo.Gateway, u.Device, func(a netlink.Addr) bool { return u.PrefixV6().Contains(addrOf(a)) && a.PreferedLft == 0 })
	_, err = topo.Gateway.Ping(labtest.Context(t), serverV6)
	labtest.Must(t, err)
	labtest.Must(t, u.Advertise(0))
	if _, err := topo.Gateway.Ping(labtest.Context(t), serverV6); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("after the router left: %v", err)
	}
}

func addrOf(a netlink.Addr) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.IP)
	return addr
}

// awaitAddress waits until a device has such an IPv6 address, and may use it.
func awaitAddress(t *testing.T, n *lab.Namespace, device string, match func(netlink.Addr) bool) {
	t.Helper()
	link, err := n.Handle().LinkByName(device)
	labtest.Must(t, err)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list, err := n.Handle().AddrList(link, unix.AF_INET6)
		labtest.Must(t, err)
		for _, a := range list {
			if a.Flags&unix.IFA_F_TENTATIVE == 0 && match(a) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("addresses %v", list)
		}
	}
}

// frameV6 is an Ethernet frame of IPv6, with chain before the payload of the transport layer.
func frameV6(t *testing.T, first, proto layers.IPProtocol, chain []byte) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: proto, SrcIP: serverV6.AsSlice(), DstIP: lab.ServerAddrsV6[1].AsSlice()}
	var l4 gopacket.SerializableLayer
	switch proto {
	case layers.IPProtocolTCP:
		tcp := &layers.TCP{SrcPort: 1, DstPort: 2}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		l4 = tcp
	case layers.IPProtocolUDP:
		udp := &layers.UDP{SrcPort: 1, DstPort: 2}
		_ = udp.SetNetworkLayerForChecksum(ip)
		l4 = udp
	default:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		l4 = icmp
	}
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	body := gopacket.NewSerializeBuffer()
	quote := append(make([]byte, 4), 0x60)
	labtest.Must(t, gopacket.SerializeLayers(body, options, l4, gopacket.Payload(append(quote, make([]byte, 50)...))))
	if chain != nil {
		ip.NextHeader = first
	}
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 0xee}, DstMAC: []byte{2, 0, 0, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6}
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, options, eth, ip, gopacket.Payload(append(chain, body.Bytes()...))))
	return buf.Bytes()
}

// TestCaptureFindsWhatIsWrongV6: as of IPv4, also behind extension headers.
func TestCaptureFindsWhatIsWrongV6(t *testing.T) {
	const ip, l4, ext = 14, 54, 8
	const tcp, udp, icmp = layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv6
	options := []byte{6, 0, 1, 4, 0, 0, 0, 0}
	alone, piece := []byte{17, 0, 0, 0, 0, 0, 0, 9}, []byte{17, 0, 0, 0x11, 0, 0, 0, 9}
	none := func([]byte) {}
	for name, tc := range map[string]struct {
		frame  []byte
		damage func([]byte)
		want   string
	}{
		"good TCP":             {frameV6(t, 0, tcp, nil), none, ""},
		"good UDP":             {frameV6(t, 0, udp, nil), none, ""},
		"good ICMPv6":          {frameV6(t, 0, icmp, nil), none, ""},
		"behind options":       {frameV6(t, 60, tcp, options), none, ""},
		"a fragment":           {frameV6(t, 44, udp, piece), func(b []byte) { b[l4+ext+8]++ }, ""},
		"hop limit changed":    {frameV6(t, 0, tcp, nil), func(b []byte) { b[ip+7]-- }, ""},
		"address changed":      {frameV6(t, 0, tcp, nil), func(b []byte) { b[ip+39]++ }, "wrong transport"},
		"data changed":         {frameV6(t, 60, tcp, options), func(b []byte) { b[l4+ext+30]++ }, "wrong transport"},
		"alone, changed":       {frameV6(t, 44, udp, alone), func(b []byte) { b[l4+ext+8]++ }, "wrong transport"},
		"no UDP checksum":      {frameV6(t, 0, udp, nil), func(b []byte) { b[l4+6], b[l4+7] = 0, 0 }, "without a checksum"},
		"ICMPv6 changed":       {frameV6(t, 0, icmp, nil), func(b []byte) { b[l4+5]++ }, "wrong transport"},
		"headers without end":  {frameV6(t, 60, tcp, options), func(b []byte) { b[l4+1] = 200 }, "extension headers"},
		"truncated":            {frameV6(t, 0, tcp, nil)[:80], none, "IPv6 length"},
		"quotes another thing": {frameV6(t, 0, icmp, nil), func(b []byte) { b[l4+8], b[l4+9], b[l4+10] = 0x40, 0, 0x20 }, "quotes no whole"},
	} {
		t.Run(name, func(t *testing.T) {
			p := passThrough(t, tc.frame, tc.damage)
			if tc.want == "" && p.Problem != "" || !strings.Contains(p.Problem, tc.want) {
				t.Errorf("problem %q, want %q in it", p.Problem, tc.want)
			}
		})
	}
}
