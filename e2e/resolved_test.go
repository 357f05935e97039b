package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// resolvedScript runs systemd-resolved with a folder in the place of /run, its user, whom it becomes, and no resolver of the machine's.
const resolvedScript = `mount --bind "$1" /run
(cat /etc/passwd; echo systemd-resolve:x:65533:65533::/:/bin/false) >/run/passwd
mount --bind /run/passwd /etc/passwd
mount --bind /dev/null /etc/resolv.conf
exec env LD_LIBRARY_PATH="$(echo "$2"/usr/lib/*/systemd)" "$2/lib/systemd/systemd-resolved"
`

// resolvedConf leaves nothing but the resolvers of links, and forgets at once what they say.
const resolvedConf = "[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\nCache=no\n"

// startResolved runs systemd-resolved, which takes what it knows of links from systemd-networkd's files as those of a folder in the
// place of /run.
func startResolved(t testing.TB, ns *lab.Namespace, run string) {
	t.Helper()
	unpacked, err := filepath.Abs("../bin/resolved")
	labtest.Must(t, err)
	writeBelow(t, run, "systemd/resolved.conf.d/lab.conf", resolvedConf)
	c := startPeer(t, ns, "resolved", "unshare", "--mount", "sh", "-ec", resolvedScript, "sh", run, unpacked)
	t.Cleanup(func() { endPeer(&c) })
}

// TestHostSystemdResolved: programs of the host find addresses by the stub of systemd-resolved, and host and LAN by the resolvers that it
// names, while a provider's resolver is dead with its uplink. Each is asked by its own uplink alone, as systemd-networkd says whose it is.
func TestHostSystemdResolved(t *testing.T) {
	t.Parallel()
	topology, _ := resolving(t, lab.Options{}, resolverOf)
	run := t.TempDir()
	for _, u := range topology.Uplinks {
		index, err := topology.Gateway.Index(u.Device)
		labtest.Must(t, err)
		writeBelow(t, run, fmt.Sprintf("systemd/netif/links/%d", index),
			fmt.Sprintf("ADMIN_STATE=configured\nOPER_STATE=routable\nDNS=%s\n", resolverOf(u)))
	}
	g := startWithRun(t, topology.Gateway, run)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	first, second := w.serveNames(w.Uplinks[0], resolverOf(w.Uplinks[0])), w.serveNames(w.Uplinks[1], resolverOf(w.Uplinks[1]))
	startResolved(t, w.Gateway, run)
	stub, direct := filepath.Join(run, "systemd/resolve/stub-resolv.conf"), filepath.Join(run, "systemd/resolve/resolv.conf")
	eventually(t, "an answer of the stub", func() bool { _, err := lookUp(t, w.Gateway, stub); return err == nil })
	all := func(when string) {
		t.Helper()
		w.resolves("by the stub "+when, stub, w.Gateway)
		w.resolves("directly "+when, direct, w.Gateway, w.lan)
	}
	all("with all uplinks")
	for _, dead := range w.Uplinks {
		begun := time.Now()
		labtest.Must(t, dead.Silence(true))
		w.resolves("by the stub when an uplink has just died", stub, w.Gateway)
		w.events.state(dead.Device, api.StateDown, begun)
		all("with " + dead.Device + " dead")
		healed := time.Now()
		labtest.Must(t, dead.Silence(false))
		w.events.state(dead.Device, api.StateUp, healed)
	}
	all("with all uplinks again")
	by := func(r *resolver, i int) int { return r.askedBy(w.Uplinks[i].Addr()) }
	if by(first, 0) == 0 || by(second, 1) == 0 || by(first, 1)+by(second, 0) > 0 {
		t.Errorf("the first resolver was asked %d and %d times by the uplinks, the second %d and %d times", by(first, 0), by(first, 1), by(second, 0), by(second, 1))
	}
}
