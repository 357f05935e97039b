package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/lab/labwg"
)

// What Tailscale marks its own packets with, so that they pass its table by.
const (
	markTailscale = 0x80000
	maskTailscale = 0xff0000
	tailscaleName = "tailscale0"
)

// Addresses in the tailnet: the gateway's, a peer's in the Internet, and a phone's that has the gateway for its exit node.
var (
	tailscaleSelf  = netip.MustParsePrefix("100.101.0.1/32")
	tailscalePeer  = netip.MustParsePrefix("100.101.0.2/24")
	tailscalePhone = netip.MustParsePrefix("100.101.0.3/32")
	tailscaleTable = 52
)

// tailscaleRules are Tailscale's of 2026, of iptables.
const tailscaleRules = `*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000
-A OUTPUT -m conntrack --ctstate NEW -m mark ! --mark 0x0/0xff0000 -j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:ts-postrouting - [0:0]
-A POSTROUTING -j ts-postrouting
-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ts-forward - [0:0]
:ts-input - [0:0]
-A INPUT -j ts-input
-A FORWARD -j ts-forward
-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
-A ts-forward -s 100.64.0.0/10 -o tailscale0 -j DROP
-A ts-forward -o tailscale0 -j ACCEPT
-A ts-input -s 100.101.0.1/32 -i lo -j ACCEPT
-A ts-input -s 100.115.92.0/23 ! -i tailscale0 -j RETURN
-A ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP
-A ts-input -i tailscale0 -j ACCEPT
-A ts-input -p udp -m udp --dport 41641 -j ACCEPT
COMMIT
`

// tailnet is a gateway that is a node of Tailscale's, with a tunnel in the place of its own.
type tailnet struct {
	t          testing.TB
	gateway    *lab.Namespace
	self, peer *tunnel
	phone      *lab.Namespace // behind the peer
}

// joinTailnet makes the peers, and sets up what Tailscale does on the gateway.
func joinTailnet(t testing.TB, topology *lab.Topology) *tailnet {
	t.Helper()
	n := &tailnet{t: t, gateway: topology.Gateway}
	key, peer := newKey(t), newKey(t)
	labtest.Must(t, labwg.AnswerFromServer(topology.Internet))
	n.peer = openTunnel(t, topology.Internet, tailscalePeer, peer, labwg.ServerConfig(key.PublicKey(), "0.0.0.0/0")...)
	n.peer.route(t, lanPrefix, 0, unix.RT_TABLE_MAIN)
	n.addPhone(topology.Internet)
	config := append([]string{fmt.Sprint("fwmark=", markTailscale)}, labwg.ClientConfig(peer.PublicKey(), 1)...)
	n.self = openTunnel(t, n.gateway, tailscaleSelf, key, config...)
	labtest.Must(t, n.gateway.Handle().LinkSetName(linkOf(t, n.gateway, labwg.Device), tailscaleName))
	labtest.Must(t, n.gateway.Sysctl("net/ipv4/ip_forward", "1")) // as it wants it of routers
	n.up()
	return n
}

// addPhone connects a host to the peer, which sends all that it says into the tunnel.
func (n *tailnet) addPhone(internet *lab.Namespace) {
	n.t.Helper()
	const table = 77
	n.phone = labtest.Namespace(n.t, "phone")
	link, err := lab.Connect(lab.End{NS: internet, Device: "phone", Prefix: netip.MustParsePrefix("192.0.2.129/30")},
		lab.End{NS: n.phone, Device: lab.DeviceHost, Prefix: tailscalePhone}, device.DefaultMTU)
	labtest.Must(n.t, err)
	n.t.Cleanup(func() { labtest.Must(n.t, link.Unplug()) })
	there, here := linkOf(n.t, internet, "phone").Attrs().Index, linkOf(n.t, n.phone, lab.DeviceHost).Attrs().Index
	rule, local := netlink.NewRule(), netlink.NewRule()
	rule.Family, rule.IifName, rule.Table, rule.Priority = unix.AF_INET, "phone", table, table
	rule.Dst = ipNet(netip.PrefixFrom(lab.ServerAddrs[0], 24).Masked())
	local.Family, local.Table, local.Priority = unix.AF_INET, unix.RT_TABLE_LOCAL, table+1 // the servers are here
	labtest.Must(n.t, errors.Join(internet.Handle().RuleAdd(rule), internet.Handle().RuleAdd(local)))
	local.Priority = 0
	labtest.Must(n.t, errors.Join(internet.Handle().RuleDel(local), internet.Sysctl("net/ipv4/conf/"+labwg.Device+"/accept_local", "1")))
	n.peer.route(n.t, netip.MustParsePrefix("0.0.0.0/0"), 0, table)
	labtest.Must(n.t, errors.Join(
		internet.Handle().RouteAdd(&netlink.Route{LinkIndex: there, Dst: ipNet(tailscalePhone), Scope: netlink.SCOPE_LINK}),
		n.phone.Handle().RouteAdd(&netlink.Route{LinkIndex: here, Dst: ipNet(netip.MustParsePrefix("192.0.2.129/32")), Scope: netlink.SCOPE_LINK}),
		n.phone.Handle().RouteAdd(&netlink.Route{LinkIndex: here, Gw: netip.MustParseAddr("192.0.2.129").AsSlice()})))
}

// policies are Tailscale's routing rules.
func (n *tailnet) policies() (list []*netlink.Rule) {
	add := func(priority, table int, marked bool) *netlink.Rule {
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table = unix.AF_INET, priority, table
		if mask := uint32(maskTailscale); marked {
			rule.Mark, rule.Mask = markTailscale, &mask
		}
		list = append(list, rule)
		return rule
	}
	add(5210, unix.RT_TABLE_MAIN, true)
	add(5230, unix.RT_TABLE_DEFAULT, true)
	add(5250, 0, true).Type = unix.RTN_UNREACHABLE
	add(5270, tailscaleTable, false)
	return list
}

// up is what `tailscale up` does on the gateway, and down what `tailscale down` does.
func (n *tailnet) up() {
	n.t.Helper()
	iptables(n.t, n.gateway, tailscaleRules)
	for _, rule := range n.policies() {
		labtest.Must(n.t, n.gateway.Handle().RuleAdd(rule))
	}
	for _, to := range []netip.Prefix{tailscalePeer, tailscalePhone} {
		n.self.route(n.t, netip.PrefixFrom(to.Addr(), 32), 0, tailscaleTable)
	}
}

func (n *tailnet) down() {
	n.t.Helper()
	iptables(n.t, n.gateway, emptyIPTables)
	for _, rule := range n.policies() {
		labtest.Must(n.t, n.gateway.Handle().RuleDel(rule))
	}
	n.eachRoute(n.gateway.Handle().RouteDel)
}

// eachRoute does something to each route of Tailscale's table.
func (n *tailnet) eachRoute(do func(*netlink.Route) error) {
	n.t.Helper()
	routes, err := n.gateway.Handle().RouteListFiltered(unix.AF_INET, &netlink.Route{Table: tailscaleTable}, netlink.RT_FILTER_TABLE)
	labtest.Must(n.t, err)
	for i := range routes {
		labtest.Must(n.t, do(&routes[i]))
	}
}

// useExitNode sends all of the gateway's into the tunnel but for what Tailscale itself sends, until stopped.
func (n *tailnet) useExitNode() (stop func()) {
	n.t.Helper()
	everything := netip.MustParsePrefix("0.0.0.0/0")
	n.self.route(n.t, everything, 0, tailscaleTable)
	return func() {
		n.t.Helper()
		n.eachRoute(func(r *netlink.Route) error {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				return nil
			}
			return n.gateway.Handle().RouteDel(r)
		})
	}
}
