package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// What Docker makes: a bridge, and containers on it.
const (
	dockerBridge  = "docker0"
	publishedPort = 8080
)

var (
	dockerGateway = netip.MustParsePrefix("172.17.0.1/16")
	containerAddr = []netip.Prefix{netip.MustParsePrefix("172.17.0.2/16"), netip.MustParsePrefix("172.17.0.3/16")}
)

// dockerRules are Docker's for one container with published ports, and what a router's owner adds to DOCKER-USER so that
// Docker's policy spares the LAN.
const dockerRules = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:7001
-A DOCKER ! -i docker0 -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:9000
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 7003 -j DNAT --to-destination 172.17.0.2:7003
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 7001 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp -m udp --dport 9000 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 7003 -j ACCEPT
-A DOCKER-USER -i lan0 -j ACCEPT
-A DOCKER-USER -o lan0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
`

// TestHostDocker: containers reach the Internet by every uplink, each other, and are reached by their published ports from
// there and from the LAN, whether Docker or the gateway came first.
func TestHostDocker(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]bool{"Docker first": true, "gateway first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var containers []*lab.Namespace
			install := func(gateway *lab.Namespace) {
				containers = addContainers(t, gateway)
				iptables(t, gateway, dockerRules)
			}
			w := beginWith(t, lab.Options{}, inTurn, func(topology *lab.Topology) {
				if first {
					install(topology.Gateway)
				}
			})
			if !first {
				install(w.Gateway)
			}
			for _, u := range w.Uplinks {
				watchUplink(t, w.Gateway, u)
			}
			testContainers(t, w, containers)
		})
	}
}

func testContainers(t *testing.T, w world, containers []*lab.Namespace) {
	servers, err := lab.StartServers(containers[0])
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
	t.Run("outbound", func(t *testing.T) {
		for _, c := range containers {
			expectAllUplinks(t, w, visitAll(t, w, c))
			testUDP(t, w, c)
			testRefused(t, w, c)
		}
	})
	t.Run("published port", func(t *testing.T) { testPublished(t, w, containers[0]) })
	t.Run("each other", func(t *testing.T) {
		labtest.Must(t, askStream(t, containers[1], netip.AddrPortFrom(containerAddr[0].Addr(), lab.PortTCPEcho)))
		labtest.Must(t, askStream(t, w.Gateway, netip.AddrPortFrom(containerAddr[0].Addr(), lab.PortTCPEcho)))
	})
	t.Run("the rest", func(t *testing.T) {
		expectAllUplinks(t, w, visitAll(t, w, w.lan))
		expectAllUplinks(t, w, visitAll(t, w, w.Gateway))
	})
	t.Run("dead uplink", func(t *testing.T) {
		moving := keepAskingUDP(t, containers[1])
		dead := w.Uplinks[0]
		labtest.Must(t, dead.SetFaults(lab.Blackhole))
		defer func() { labtest.Must(t, dead.SetFaults()) }()
		eventually(t, "the container's datagrams by the other uplink", func() bool { return moving.by(w.Uplinks[1]) })
		eventually(t, "the container's connections by the other uplink", func() bool {
			return visitFor(containers[1], lab.ServerAddrs[0], time.Second).err == nil
		})
	})
	t.Run("drop policy", func(t *testing.T) {
		feed(t, w.Gateway, "*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n", "iptables-nft-restore", "--noflush")
		if v := visitFor(w.lan, lab.ServerAddrs[0], time.Second); v.err == nil {
			t.Error("Docker's policy does not hold for the LAN any more")
		}
		online(t, containers[1])
	})
}

// testPublished reaches a container from the Internet and the LAN.
func testPublished(t *testing.T, w world, container *lab.Namespace) {
	serveUDP(t, container, netip.AddrPortFrom(containerAddr[0].Addr(), 9000))
	expectServed(t, w, publishedPort)
	ctx := labtest.Context(t)
	for _, u := range w.Uplinks {
		_, err := w.Internet.BulkDownload(ctx, u.Addr(), 1, 4<<20)
		labtest.Must(t, err)
		_, err = w.Internet.BulkUpload(ctx, u.Addr(), 2, 4<<20)
		labtest.Must(t, err)
	}
	labtest.Must(t, askStream(t, w.lan, netip.AddrPortFrom(lab.GatewayLANAddr, publishedPort)))
}

// addContainers puts two namespaces on a bridge of the gateway's.
func addContainers(t testing.TB, gateway *lab.Namespace) []*lab.Namespace {
	t.Helper()
	labtest.Must(t, gateway.Sysctl("net/ipv4/ip_forward", "1"))
	addBridge(t, gateway, dockerBridge, dockerGateway)
	return addGuests(t, gateway, dockerBridge, dockerGateway.Addr(), containerAddr)
}

// addBridge makes one with an address.
func addBridge(t testing.TB, gateway *lab.Namespace, name string, address netip.Prefix) {
	t.Helper()
	h := gateway.Handle()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	labtest.Must(t, h.LinkAdd(bridge))
	labtest.Must(t, h.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(address)}))
	labtest.Must(t, h.LinkSetUp(bridge))
}

// addGuests makes namespaces with these addresses, and ports of a bridge for them.
func addGuests(t testing.TB, gateway *lab.Namespace, bridge string, router netip.Addr, addresses []netip.Prefix) (guests []*lab.Namespace) {
	t.Helper()
	for i, prefix := range addresses {
		c := labtest.Namespace(t, "guest")
		port := lab.End{NS: gateway, Device: "vethc" + string(rune('1'+i))}
		link, err := lab.Connect(port, lab.End{NS: c, Device: lab.DeviceHost, Prefix: prefix}, 0)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, link.Unplug()) })
		plugInto(t, gateway, bridge, port.Device)
		labtest.Must(t, c.Handle().RouteAdd(&netlink.Route{Gw: router.AsSlice()}))
		guests = append(guests, c)
	}
	return guests
}

// plugInto makes a device a port of a bridge.
func plugInto(t testing.TB, gateway *lab.Namespace, bridge, device string) {
	t.Helper()
	labtest.Must(t, gateway.Handle().LinkSetMaster(linkOf(t, gateway, device), linkOf(t, gateway, bridge)))
}
