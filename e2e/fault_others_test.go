package e2e

import (
	native "encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// spoofedMAC is nobody's.
var spoofedMAC = net.HardwareAddr{2, 0x66, 0x66, 0x66, 0x66, 0x66}

// spoof has somebody on the uplink's link claim to be its gateway, until stopped.
func (w world) spoof(u *lab.Uplink) (stop func()) {
	w.t.Helper()
	claim := claimOf(w.t, u.NextHop(), spoofedMAC)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for pace := time.NewTicker(200 * time.Millisecond); ; {
			inject(w.t, u.ISP, lab.DeviceCustomer, claim)
			select {
			case <-done:
				pace.Stop()
				return
			case <-pace.C:
			}
		}
	}()
	return func() { close(done); <-ended }
}

// claimOf is the frame by which somebody tells all that an address is his (RFC 5227 §3).
func claimOf(t testing.TB, a netip.Addr, mac net.HardwareAddr) []byte {
	t.Helper()
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{},
		&layers.Ethernet{SrcMAC: mac, DstMAC: broadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: layers.ARPReply, SourceHwAddress: mac, SourceProtAddress: a.AsSlice(), DstHwAddress: broadcast, DstProtAddress: a.AsSlice()}))
	return buf.Bytes()
}

// TestFault25_SpoofedARP: somebody who claims to be the gateway is told of by name, costs no more than that uplink, and only as long as
// he goes on. Where the neighbour is pinned in the kernel he has no success at all.
func TestFault25_SpoofedARP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	first, second := w.Uplinks[0], w.Uplinks[1]
	begun := time.Now()
	stop := w.spoof(first)
	w.events.await("the claim", begun, func(e api.Event) bool {
		return e.Kind == api.EventGateway && e.Uplink == first.Device && contains(e.Message, spoofedMAC.String())
	})
	down := w.events.state(first.Device, api.StateDown, begun)
	visits := keepVisiting(t, w.lan)
	visits.by(second.Addr(), down.at)
	stopped := time.Now()
	stop()
	w.events.state(first.Device, api.StateUp, stopped)
	back := visits.by(first.Addr(), stopped)
	t.Logf("used again %s after the last claim", back.Sub(stopped))
	visits.stop()

	index, err := w.Gateway.Index(first.Device)
	labtest.Must(t, err)
	labtest.Must(t, w.Gateway.Handle().NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: first.NextHop().AsSlice(), HardwareAddr: first.Link.Far.MAC,
	}))
	pinned := time.Now()
	stop = w.spoof(first)
	visits = keepVisiting(t, w.lan)
	w.events.none(3*time.Second, pinned, func(e api.Event) bool {
		return e.Uplink == first.Device && e.Kind != api.EventState || leaves(api.StateUp)(e)
	})
	stop()
	expectOutage(t, visits.stop(), pinned, 0)
}

// TestFault26_NeighbourTable: more neighbours on the LAN than the kernel likes to remember do not cost an uplink its gateway.
func TestFault26_NeighbourTable(t *testing.T) {
	const neighbours = 700 // the kernel forgets what it can from 512 on; more than 1024 would be felt beyond these namespaces
	w := begin(t, lab.Options{}, inTurn)
	established := w.connect(w.lan, "wan1")
	index, err := w.Gateway.Index(lab.DeviceLAN)
	labtest.Must(t, err)
	link, err := w.Gateway.Handle().LinkByIndex(index)
	labtest.Must(t, err)
	wide := netip.MustParsePrefix("10.20.0.1/16")
	labtest.Must(t, w.Gateway.Handle().AddrAdd(link, &netlink.Addr{IPNet: ipNet(wide)}))
	begun := time.Now()
	visits := keepVisiting(t, w.lan)
	for i := range neighbours {
		addr := native.BigEndian.AppendUint32(nil, 0x0a140100+uint32(i))
		labtest.Must(t, w.Gateway.Handle().NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_STALE, IP: addr,
			HardwareAddr: net.HardwareAddr{2, 1, addr[0], addr[1], addr[2], addr[3]},
		}))
	}
	for _, u := range w.Uplinks {
		visits.by(u.Addr(), time.Now())
	}
	labtest.Must(t, established.talk())
	expectOutage(t, visits.stop(), begun, 0)
	w.events.none(time.Second, begun, leaves(api.StateUp))
}

// TestFault28_RouterChange: the router of an uplink's IPv6 says that it is none any more, and another takes over.
func TestFault28_RouterChange(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)}, inTurn)
	u := w.Uplinks[0]
	labtest.Must(t, u.RemoveRouterV6())
	prefix := advertised(u.PrefixV6(), life)
	labtest.Must(t, u.Advertise(life, prefix))
	gateway := func() netip.Addr { return w.uplink(u.Device).IPv6.Gateway }
	w.awaitUpV6(u.Device, func(a netip.Addr) bool { return a != u.AddrV6() && gateway() == u.NextHopV6() })
	established := w.connect(w.lan, u.Device)
	next := netip.MustParseAddr("fe80::77")
	labtest.Must(t, u.Advertise(0, prefix))
	labtest.Must(t, u.AdvertiseFrom(next, life, prefix))
	eventually(t, "the other router", func() bool { return gateway() == next })
	labtest.Must(t, established.talk())
	visits := keepVisitingOver(overIPv6, t, w.lan)
	visits.from(u.PrefixV6(), time.Now())
	visits.stop()
}

// TestFault29_RogueRouters: a flood of advertisements on an uplink's link costs no more than that uplink's IPv6, and a host of the LAN that
// says it is a router is not believed.
func TestFault29_RogueRouters(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	first, second := w.Uplinks[0], w.Uplinks[1]
	begun := time.Now()
	for i := range 60 {
		var prefixes []lab.AdvertisedPrefix
		for j := range 10 {
			prefixes = append(prefixes, advertised(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xee, byte(i), byte(j)}), 64), life))
		}
		labtest.Must(t, first.Advertise(life, prefixes...))
	}
	labtest.Must(t, w.Hosts[0].AdvertiseOn(lab.DeviceHost, life))
	visits := keepVisitingOver(overIPv6, t, w.lan)
	visits.from(second.PrefixV6(), begun)
	visits.stop()
	labtest.Must(t, w.connect(w.lan, second.Device).talk())
	if u := w.uplink(first.Device); len(u.IPv6.Addresses) > 32 || u.State != api.StateUp {
		t.Errorf("the flooded uplink: %+v", u)
	}
	for _, u := range w.status().Uplinks {
		if u.Interface == lab.DeviceLAN {
			t.Error("a host of the LAN has become an uplink")
		}
	}
	visit := visitFor(w.lan, lab.ServerAddrs[0], patience)
	labtest.Must(t, visit.err)
}

// TestFault56_OtherTools: settings that other tools change are set again and told of, and so is a firewall of theirs.
func TestFault56_OtherTools(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{RPFilter: 1}, inTurn)
	established := w.connect(w.lan, "wan1")
	for path, values := range map[string][]string{"net/ipv4/conf/wan1/rp_filter": {"1"}, "net/ipv4/ip_forward": {"1", "0"}} {
		begun := time.Now()
		for _, value := range values { // the kernel passes a change of the global switch on to all interfaces
			labtest.Must(t, w.Gateway.Sysctl(path, value))
		}
		told := w.events.await("somebody changed "+path, begun, isRepair)
		t.Logf("%s: %s", path, told.Message)
		labtest.Must(t, established.talk())
		online(t, w.lan)
	}
	if datapath(t) != api.DatapathKernel {
		return // without the shortcut nothing is taken past a firewall
	}
	nftablesRules(t, w.Gateway, "table inet rival { chain forward { type filter hook forward priority 0; policy drop; }\n}\n")
	eventually(t, "the firewall in the status", func() bool {
		s := w.status()
		return !s.LANShortcut && contains(s.LANShortcutReason, "rival")
	})
}

// TestFault68_CallsAtFailback: a phone that was moved to another uplink stays there when its own is back, and so do the streams of its
// calls.
func TestFault68_CallsAtFailback(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst+helping("sip"))
	first, second := w.Uplinks[0], w.Uplinks[1]
	phone, registrar := datagramEnds(t, w)
	c := call{phone, registrar, phone.register(t, registrar)}
	c.out(t, w)

	begun := time.Now()
	labtest.Must(t, first.SetFaults(lab.Blackhole))
	w.events.state(first.Device, api.StateDown, begun)
	phone.send(t, "\r\n\r\n")
	server := registrar.Conn.(answering)
	labtest.Must(t, server.SetReadDeadline(time.Now().Add(patience)))
	_, from, err := server.ReadFrom(make([]byte, 100))
	labtest.Must(t, err)
	registrar.Conn = answering{server.UDPConn, from}
	c = call{phone, registrar, phone.register(t, registrar)}
	healed := time.Now()
	labtest.Must(t, first.SetFaults())
	w.events.state(first.Device, api.StateUp, healed)
	c.out(t, w)
	c.in(t, w)
	if c.outside.Addr() != second.Addr() {
		t.Errorf("the phone is seen at %s", c.outside)
	}
}
