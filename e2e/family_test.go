package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// family is what tests of traffic need to know of IPv4 or IPv6.
type family struct {
	name          string
	servers       []netip.Addr
	udp, any      string // network and address of a socket that is bound to no address
	ip            string // network of raw sockets
	icmp, anyIP   string // of one of ICMP, and the address of one that is bound to no address
	proto         int    // of ICMP
	prohibited    string // how a ping tells that we refuse
	request       icmp.Type
	reply         icmp.Type
	own, provider func(*lab.Uplink) netip.Addr // the gateway's address on an uplink, and the provider's
	lan           netip.Addr                   // of the gateway on the LAN
	host          func(*lab.Host) netip.Addr
	table         nftables.TableFamily
	setHops       func(net.PacketConn, int) error
	// Addresses that routes lead to and no kernel has: all that comes from them is made by the test.
	rawHosts            []netip.Addr
	rawRemote, rawOther netip.Addr
}

var overIPv4 = &family{
	name: api.FamilyIPv4, servers: lab.ServerAddrs, udp: "udp4", any: "0.0.0.0:0", ip: "ip4", icmp: "ip4:icmp", anyIP: "0.0.0.0",
	proto: 1, prohibited: "code 13", request: ipv4.ICMPTypeEcho, reply: ipv4.ICMPTypeEchoReply,
	own: (*lab.Uplink).Addr, provider: (*lab.Uplink).NextHop, lan: lab.GatewayLANAddr,
	host: func(h *lab.Host) netip.Addr { return h.Addr }, table: nftables.TableFamilyIPv4,
	setHops:  func(c net.PacketConn, n int) error { return ipv4.NewPacketConn(c).SetTTL(n) },
	rawHosts: rawHosts, rawRemote: rawRemote, rawOther: rawOther,
}

var overIPv6 = &family{
	name: api.FamilyIPv6, servers: lab.ServerAddrsV6, udp: "udp6", any: "[::]:0", ip: "ip6", icmp: "ip6:ipv6-icmp", anyIP: "::",
	proto: 58, prohibited: "code 1", request: ipv6.ICMPTypeEchoRequest, reply: ipv6.ICMPTypeEchoReply,
	own: (*lab.Uplink).AddrV6, provider: func(u *lab.Uplink) netip.Addr { return u.PrefixV6().Addr().Next() }, lan: lab.GatewayLANAddrV6,
	host: func(h *lab.Host) netip.Addr { return h.AddrV6 }, table: nftables.TableFamilyIPv6,
	setHops:   func(c net.PacketConn, n int) error { return ipv6.NewPacketConn(c).SetHopLimit(n) },
	rawHosts:  []netip.Addr{netip.MustParseAddr("fd00:10::77"), netip.MustParseAddr("fd00:10::78")},
	rawRemote: netip.MustParseAddr("2001:db8:f::99"), rawOther: netip.MustParseAddr("2001:db8:f::98"),
}

// familyOf is that of an address.
func familyOf(a netip.Addr) *family {
	if a.Is6() {
		return overIPv6
	}
	return overIPv4
}

// eachFamily runs a test over IPv4 and over IPv6, beside others.
func eachFamily(t *testing.T, test func(t *testing.T, f *family)) {
	t.Parallel()
	for _, f := range []*family{overIPv4, overIPv6} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

// beginOver is begin for a test of one family.
func beginOver(t testing.TB, f *family, o lab.Options, config string) world {
	t.Helper()
	if f == overIPv6 {
		return beginV6(t, o, config)
	}
	return begin(t, o, config)
}

// beginSeldom is beginOver with uplinks in tiers that are probed seldom: that only begins once all are up, as probes that are brought
// forward have a stock, which every change of a state takes from.
func beginSeldom(t testing.TB, f *family, o lab.Options) world {
	t.Helper()
	w := beginOver(t, f, o, preferFirst)
	w.use(seldom + preferFirst)
	return w
}

// cutOff has nothing of a family get through an uplink any more.
func cutOff(t testing.TB, f *family, u *lab.Uplink) {
	t.Helper()
	if f == overIPv6 {
		withoutIPv6(t, u, true)
		return
	}
	labtest.Must(t, u.SetFaults(lab.Blackhole))
}

// beginV6 is begin for a test of IPv6: all uplinks have it, and so has the LAN host.
func beginV6(t testing.TB, o lab.Options, config string) world {
	t.Helper()
	w, _ := beginV6From(t, o, config)
	return w
}

// beginV6From is beginV6, and returns the state of the gateway before.
func beginV6From(t testing.TB, o lab.Options, config string) (w world, before lab.State) {
	t.Helper()
	o.IPv6 = true
	g, topology, before := settledOn(t, o, datapath(t), config)
	w = world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	for _, u := range w.Uplinks {
		w.ipv6Is(u.Device, api.StateUp, time.Time{})
	}
	w.family = overIPv6
	w.meetLAN()
	return w, before
}
