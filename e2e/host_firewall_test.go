package e2e

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Ports that the firewalls of the tests let in, and others: each outside and inside the pool of NAT.
const (
	portSSH     = 22
	portAllowed = 15001
	portLimited = 2222
)

// firewall is what a program sets up on a router with deny as its default.
type firewall struct {
	load   func(testing.TB, *lab.Namespace) // also again, as its reload does
	limits int                              // connections to portLimited that one client may begin, 0 for no such rule
}

var firewalls = map[string]firewall{
	"ufw":       {load: func(t testing.TB, ns *lab.Namespace) { t.Helper(); iptables(t, ns, ufwRules) }, limits: 5},
	"firewalld": {load: func(t testing.TB, ns *lab.Namespace) { t.Helper(); nftablesRules(t, ns, firewalldRules) }},
}

// ufwRules are ufw's chains after `ufw default deny`, `ufw allow 22`, `ufw allow 15001`, `ufw limit 2222/tcp` and
// `ufw route allow in on lan0`.
const ufwRules = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-before-output - [0:0]
:ufw-after-input - [0:0]
:ufw-not-local - [0:0]
:ufw-skip-to-policy-input - [0:0]
:ufw-track-output - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
:ufw-user-output - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A FORWARD -j ufw-before-forward
-A OUTPUT -j ufw-before-output
-A OUTPUT -j ufw-track-output
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 11 -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 12 -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT
-A ufw-before-input -d 239.255.255.250/32 -p udp -m udp --dport 1900 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate INVALID -j DROP
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-before-output -o lo -j ACCEPT
-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-output -j ufw-user-output
-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
-A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input
-A ufw-skip-to-policy-input -j DROP
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT
-A ufw-track-output -p udp -m conntrack --ctstate NEW -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-user-input -p udp -m udp --dport 22 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 15001 -j ACCEPT
-A ufw-user-input -p udp -m udp --dport 15001 -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
-A ufw-user-input -p tcp -m tcp --dport 2222 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport 2222 -j ufw-user-limit-accept
-A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
-A ufw-user-limit-accept -j ACCEPT
-A ufw-user-forward -i lan0 -j ACCEPT
COMMIT
`

// firewalldRules are firewalld's table with lan0 in the zone internal, uplinks and TAP in the zone external, which lets in two
// ports, and a policy that lets internal reach external.
const firewalldRules = `table inet firewalld {}
delete table inet firewalld
table inet firewalld {
	chain mangle_PREROUTING {
		type filter hook prerouting priority mangle + 10; policy accept;
		jump mangle_PREROUTING_ZONES
	}
	chain mangle_PREROUTING_ZONES {
		iifname { "wan1", "wan2", "tapgw0" } goto empty
		iifname "lan0" goto empty
		goto empty
	}
	chain nat_PREROUTING {
		type nat hook prerouting priority dstnat + 10; policy accept;
		jump empty
	}
	chain nat_POSTROUTING {
		type nat hook postrouting priority srcnat + 10; policy accept;
		jump empty
	}
	chain empty {
	}
	chain filter_PREROUTING {
		type filter hook prerouting priority filter + 10; policy accept;
		icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
		meta nfproto ipv6 fib saddr . mark . iif oif missing drop
	}
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid counter drop
		jump filter_INPUT_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid counter drop
		jump filter_FORWARD_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_OUTPUT {
		type filter hook output priority filter + 10; policy accept;
		ct state { established, related } accept
		oifname "lo" accept
		jump empty
	}
	chain filter_INPUT_ZONES {
		iifname { "wan1", "wan2", "tapgw0" } goto filter_IN_external
		iifname "lan0" goto filter_IN_internal
		goto filter_IN_external
	}
	chain filter_IN_external {
		jump filter_IN_external_allow
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_IN_external_allow {
		tcp dport { 22, 15001 } accept
		udp dport { 22, 15001 } accept
	}
	chain filter_IN_internal {
		tcp dport 22 accept
		udp dport { 53, 67 } accept
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD_ZONES {
		iifname "lan0" goto filter_FWD_internal
		goto filter_FWD_external
	}
	chain filter_FWD_internal {
		oifname { "wan1", "wan2", "tapgw0" } accept
		oifname "lan0" accept
		reject with icmpx admin-prohibited
	}
	chain filter_FWD_external {
		meta l4proto { icmp, ipv6-icmp } accept
		reject with icmpx admin-prohibited
	}
}
`

// TestHostFirewall: with ufw's and firewalld's rules, there before us or loaded while we run, host and LAN are online, what is
// let in comes in by each uplink, what is not stays out, and no packet of ours is taken for invalid.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	for name, f := range firewalls {
		for order, first := range map[string]bool{" first": true, " later": false} {
			t.Run(name+order, func(t *testing.T) {
				t.Parallel()
				w := beginWith(t, lab.Options{}, inTurn, func(topology *lab.Topology) {
					if first {
						f.load(t, topology.Gateway)
					}
				})
				flows := map[string]*flow{"host": keepAskingUDP(t, w.Gateway), "lan": keepAskingUDP(t, w.lan)}
				conns := w.connectAll()
				goOn := func() {
					expectMoving(t, flows)
					for _, c := range conns {
						labtest.Must(t, c.talk())
					}
				}
				if !first {
					f.load(t, w.Gateway)
				}
				goOn()
				testFirewall(t, w, f)
				f.load(t, w.Gateway)
				goOn()
				online(t, w.lan)
				online(t, w.Gateway)
			})
		}
	}
}

func testFirewall(t *testing.T, w world, f firewall) {
	for _, port := range []uint16{portSSH, portAllowed, portLimited, portBelow, portInside} {
		serveTCP(t, w.Gateway, port)
		if port != portLimited {
			serveUDP(t, w.Gateway, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
		}
	}
	if datapath(t) == api.DatapathKernel {
		w.awaitShortcut(false)
	}
	awaitServices(t, w)
	before := judgedInvalid(t, w.Gateway)
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			testBulk(t, w, ns)
			testUDP(t, w, ns)
		})
	}
	t.Run("let in", func(t *testing.T) {
		for _, port := range []uint16{portSSH, portAllowed} {
			expectServed(t, w, port)
		}
	})
	t.Run("kept out", func(t *testing.T) {
		for _, u := range w.Uplinks {
			for _, port := range []uint16{portBelow, portInside} {
				for _, network := range []string{"tcp4", "udp4"} {
					if approach(t, w.Internet, network, netip.AddrPortFrom(u.Addr(), port), 300*time.Millisecond) == nil {
						t.Errorf("%s port %d of %s is let in", network, port, u.Device)
					}
				}
			}
		}
	})
	if f.limits > 0 {
		t.Run("limit", func(t *testing.T) { testRateLimit(t, w, f) })
	}
	if n := judgedInvalid(t, w.Gateway) - before; n > 0 {
		t.Errorf("%d packets were taken for invalid", n)
	}
	testPings(t, w)
}

// awaitServices returns when the daemon knows the sockets, which it lists twice a second. Until then an answer has another port, and
// whoever asked refuses it by ICMP.
func awaitServices(t *testing.T, w world) {
	t.Helper()
	for _, port := range []uint16{portSSH, portAllowed} {
		service := netip.AddrPortFrom(w.Uplinks[0].Addr(), port)
		eventually(t, "an answer of a new service", func() bool {
			return approach(t, w.Internet, "udp4", service, 200*time.Millisecond) == nil
		})
	}
}

// testPings sends ICMP, of which the host's stack gets a copy that it may judge as it likes where userspace carries packets.
func testPings(t *testing.T, w world) {
	ctx := labtest.Context(t)
	_, err := w.Internet.Ping(ctx, w.Uplinks[1].Addr())
	labtest.Must(t, err)
	for _, ns := range []*lab.Namespace{w.Gateway, w.lan} {
		_, err := ns.Ping(ctx, lab.ServerAddrs[0])
		labtest.Must(t, err)
		testRefused(t, w, ns)
	}
}

// testRateLimit connects until the firewall has had enough, which counts each connection once.
func testRateLimit(t *testing.T, w world, f firewall) {
	service := netip.AddrPortFrom(w.Uplinks[1].Addr(), portLimited)
	for i := range f.limits {
		if err := askStream(t, w.Internet, service); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if approach(t, w.Internet, "tcp4", service, 300*time.Millisecond) == nil {
		t.Errorf("%d connections were let in", f.limits+1)
	}
}

// judgedInvalid is how many packets a firewall has taken for ones of no connection.
func judgedInvalid(t testing.TB, ns *lab.Namespace) (packets int) {
	t.Helper()
	rules := 0
	for line := range strings.Lines(feed(t, ns, "", "nft", "list", "ruleset")) {
		_, count, counted := strings.Cut(line, "ct state invalid counter packets ")
		if !counted {
			continue
		}
		rules++
		number, _, _ := strings.Cut(count, " ")
		n, err := strconv.Atoi(number)
		labtest.Must(t, err)
		packets += n
	}
	if rules != 2 { // in input and forward
		t.Fatalf("found %d such rules", rules)
	}
	return packets
}
