package e2e

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// beginWith is begin in a gateway on which something was prepared before the daemon came.
func beginWith(t testing.TB, o lab.Options, config string, prepare func(*lab.Topology)) world {
	t.Helper()
	topology := labtest.Build(t, o)
	labtest.Servers(t, topology)
	prepare(topology)
	g := start(t, topology.Gateway, config)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	return w
}

// iptables replaces the chains of tables, in the format of iptables-save, by the program that Docker and ufw use today.
func iptables(t testing.TB, ns *lab.Namespace, rules string) {
	t.Helper()
	feed(t, ns, rules, "iptables-nft-restore")
}

// nftables adds to the ruleset in nft's own language.
func nftablesRules(t testing.TB, ns *lab.Namespace, rules string) {
	t.Helper()
	feed(t, ns, rules, "nft", "-f", "-")
}

// feed runs a program of the firewall's with an input. `make peers` installs them.
func feed(t testing.TB, ns *lab.Namespace, input, program string, args ...string) (output string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program
	}
	c := ns.Command(labtest.Context(t), path, args...)
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s (`make peers` installs it): %v\n%s", program, err, out)
	}
	return string(out)
}

// expectServed fails the test unless a TCP and a UDP service, which repeat what they get, answer by each uplink's address.
func expectServed(t testing.TB, w world, port uint16) {
	t.Helper()
	for _, u := range w.Uplinks {
		service := netip.AddrPortFrom(u.Addr(), port)
		if err := askStream(t, w.Internet, service); err != nil {
			t.Errorf("tcp %s: %v", service, err)
		}
		if err := askService(labtest.Context(t), w.Internet, service, 1000); err != nil {
			t.Errorf("udp %s: %v", service, err)
		}
	}
}
