package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// forwardNames has a real dnsmasq, as on most routers, answer the LAN by what it asks servers.
func (w world) forwardNames(servers ...netip.Addr) {
	w.t.Helper()
	args := []string{"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--no-resolv", "--no-hosts", "--cache-size=0",
		"--interface=" + lab.DeviceLAN, "--bind-interfaces", "--all-servers"}
	for _, s := range servers {
		args = append(args, "--server="+s.String())
	}
	server := startPeer(w.t, w.Gateway, "dnsmasq", "dnsmasq", args...)
	w.t.Cleanup(func() { endPeer(&server) })
	eventually(w.t, "dnsmasq", func() bool {
		_, err := w.lan.Resolve(labtest.Context(w.t), lab.GatewayLANAddr, "ip4", "video.example")
		return err == nil
	})
}

// TestHostDnsmasq: the LAN asks dnsmasq on the gateway, which asks each provider's resolver by its own uplink, and goes on when one
// is dead.
func TestHostDnsmasq(t *testing.T) {
	t.Parallel()
	topology, config := resolving(t, lab.Options{}, resolverOf)
	g := start(t, topology.Gateway, config)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	first, second := w.serveNames(w.Uplinks[0], resolverOf(w.Uplinks[0])), w.serveNames(w.Uplinks[1], resolverOf(w.Uplinks[1]))
	w.forwardNames(resolverOf(w.Uplinks[0]), resolverOf(w.Uplinks[1]))
	file := filepath.Join(t.TempDir(), "resolv.conf")
	labtest.Must(t, os.WriteFile(file, []byte("nameserver "+lab.GatewayLANAddr.String()+"\n"), 0o644))
	w.resolves("with all uplinks", file, w.lan)
	begun := time.Now()
	labtest.Must(t, w.Uplinks[1].Silence(true))
	w.events.state("wan2", api.StateDown, begun)
	w.resolves("with one uplink dead", file, w.lan)
	if first.askedBy(w.Uplinks[0].Addr()) == 0 || second.askedBy(w.Uplinks[1].Addr()) == 0 {
		t.Error("not both resolvers were asked")
	}
	if n := first.askedBy(w.Uplinks[1].Addr()) + second.askedBy(w.Uplinks[0].Addr()); n > 0 {
		t.Errorf("a provider's resolver was asked by the other's uplink %d times", n)
	}
}

// TestRulesByDomainOfDnsmasq: rules by domains hold for hosts of the LAN that ask dnsmasq alone, whose answers the gateway does not see.
func TestRulesByDomainOfDnsmasq(t *testing.T) {
	t.Parallel()
	w := browse(t, lab.Options{}, preferFirst+`
groups: {second: {uplinks: [wan2], when_down: refuse}}
rules:
  - {name: video, domains: [video.example], use: second}
`)
	w.forwardNames(lab.ServerAddrs[0])
	for name, want := range map[string]string{"cdn.video.example": "wan2", "shop.example": "wan1"} {
		found, err := w.lan.Resolve(labtest.Context(t), lab.GatewayLANAddr, "ip4", name)
		labtest.Must(t, err)
		if got := w.visit(w.lan, found[0]); got != want {
			t.Errorf("%s by %s, not %s", name, got, want)
		}
	}
}
