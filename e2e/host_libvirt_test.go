package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// What libvirt makes of its network "default": a bridge, and guests on it.
const libvirtBridge = "virbr0"

var (
	libvirtHost  = netip.MustParsePrefix("192.168.122.1/24")
	libvirtGuest = []netip.Prefix{netip.MustParsePrefix("192.168.122.2/24"), netip.MustParsePrefix("192.168.122.3/24")}
)

// hypervisor is what libvirt loads into the kernel when a network is started, and how all of it goes when it is stopped.
type hypervisor struct {
	start, stop func(testing.TB, *lab.Namespace)
}

var hypervisors = map[string]hypervisor{
	"iptables": {
		func(t testing.TB, ns *lab.Namespace) { t.Helper(); iptables(t, ns, libvirtIPTables) },
		func(t testing.TB, ns *lab.Namespace) { t.Helper(); iptables(t, ns, emptyIPTables) },
	},
	"nftables": { // from libvirt 10.4 on
		func(t testing.TB, ns *lab.Namespace) { t.Helper(); nftablesRules(t, ns, libvirtNFTables) },
		func(t testing.TB, ns *lab.Namespace) {
			t.Helper()
			nftablesRules(t, ns, "delete table ip libvirt_network\n")
		},
	},
}

// emptyIPTables removes what was in these tables.
const emptyIPTables = "*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n"

const libvirtIPTables = `*mangle
:POSTROUTING ACCEPT [0:0]
:LIBVIRT_PRT - [0:0]
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -o virbr0 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:LIBVIRT_PRT - [0:0]
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 255.255.255.255/32 -j RETURN
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p udp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:LIBVIRT_FWI - [0:0]
:LIBVIRT_FWO - [0:0]
:LIBVIRT_FWX - [0:0]
:LIBVIRT_INP - [0:0]
:LIBVIRT_OUT - [0:0]
-A INPUT -j LIBVIRT_INP
-A FORWARD -j LIBVIRT_FWX
-A FORWARD -j LIBVIRT_FWI
-A FORWARD -j LIBVIRT_FWO
-A OUTPUT -j LIBVIRT_OUT
-A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp-port-unreachable
-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT
-A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable
-A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p tcp -m tcp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 67 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p tcp -m tcp --dport 67 -j ACCEPT
-A LIBVIRT_OUT -o virbr0 -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_OUT -o virbr0 -p tcp -m tcp --dport 53 -j ACCEPT
-A LIBVIRT_OUT -o virbr0 -p udp -m udp --dport 68 -j ACCEPT
-A LIBVIRT_OUT -o virbr0 -p tcp -m tcp --dport 68 -j ACCEPT
COMMIT
`

const libvirtNFTables = `table ip libvirt_network {
	chain forward {
		type filter hook forward priority filter; policy accept;
		counter jump guest_cross
		counter jump guest_input
		counter jump guest_output
	}
	chain guest_output {
		ip saddr 192.168.122.0/24 iif "virbr0" counter accept
		iif "virbr0" counter reject
	}
	chain guest_input {
		oif "virbr0" ip daddr 192.168.122.0/24 ct state established,related counter accept
		oif "virbr0" counter reject
	}
	chain guest_cross {
		iif "virbr0" oif "virbr0" counter accept
	}
	chain guest_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.168.122.0/24 ip daddr 224.0.0.0/24 counter return
		ip saddr 192.168.122.0/24 ip daddr 255.255.255.255 counter return
		meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
		meta l4proto udp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
		ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
	}
}
`

// TestHostLibvirt: guests reach the Internet by every uplink, each other and the host, and nobody reaches them, also after libvirt has
// stopped their network and started it again.
func TestHostLibvirt(t *testing.T) {
	t.Parallel()
	for name, virt := range hypervisors {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var guests []*lab.Namespace
			w := beginWith(t, lab.Options{}, inTurn, func(topology *lab.Topology) {
				labtest.Must(t, topology.Gateway.Sysctl("net/ipv4/ip_forward", "1"))
				addBridge(t, topology.Gateway, libvirtBridge, libvirtHost)
				guests = addGuests(t, topology.Gateway, libvirtBridge, libvirtHost.Addr(), libvirtGuest)
				virt.start(t, topology.Gateway)
			})
			for _, u := range w.Uplinks {
				watchUplink(t, w.Gateway, u)
			}
			servers, err := lab.StartServers(w.Gateway)
			labtest.Must(t, err)
			t.Cleanup(func() { labtest.Must(t, servers.Close()) })
			serveTCP(t, guests[0], portAllowed)
			testGuests(t, w, guests)

			begun := time.Now()
			flows := map[string]*flow{"host": keepAskingUDP(t, w.Gateway), "lan": keepAskingUDP(t, w.lan)}
			conns := w.connectAll()
			virt.stop(t, w.Gateway)
			labtest.Must(t, w.Gateway.Handle().LinkDel(linkOf(t, w.Gateway, libvirtBridge)))
			expectMoving(t, flows)
			addBridge(t, w.Gateway, libvirtBridge, libvirtHost)
			for i := range guests {
				plugInto(t, w.Gateway, libvirtBridge, "vethc"+string(rune('1'+i)))
			}
			virt.start(t, w.Gateway)
			expectMoving(t, flows)
			for _, c := range conns {
				labtest.Must(t, c.talk())
			}
			testGuests(t, w, guests)
			w.events.none(0, begun, isRepair)
			if all := feed(t, w.Gateway, "", "nft", "list", "ruleset"); strings.Contains(all, "mark") { // libvirt has none
				t.Errorf("we use marks, as others do:\n%s", all)
			}
		})
	}
}

func testGuests(t *testing.T, w world, guests []*lab.Namespace) {
	t.Helper()
	inside := netip.AddrPortFrom(libvirtGuest[0].Addr(), portAllowed)
	for _, g := range guests {
		expectAllUplinks(t, w, visitAll(t, w, g))
		testUDP(t, w, g)
		testRefused(t, w, g)
		labtest.Must(t, askStream(t, g, netip.AddrPortFrom(libvirtHost.Addr(), lab.PortTCPEcho)))
		labtest.Must(t, askStream(t, g, inside))
	}
	labtest.Must(t, askStream(t, w.Gateway, inside))
	if err := askStream(t, w.lan, inside); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the LAN reaches a guest: %v", err)
	}
	moving := keepAskingUDP(t, guests[1])
	dead := w.Uplinks[0]
	labtest.Must(t, dead.SetFaults(lab.Blackhole))
	eventually(t, "the guest's datagrams by the other uplink", func() bool { return moving.by(w.Uplinks[1]) })
	labtest.Must(t, dead.SetFaults())
	w.awaitState(dead.Device, "up")
	expectAllUplinks(t, w, visitAll(t, w, w.lan))
	expectAllUplinks(t, w, visitAll(t, w, w.Gateway))
}
