package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostsHaveNames: who begins a session is called as /etc/hosts says, or as it called itself when dnsmasq gave it a lease, from soon
// after that is so, and is found by it.
func TestHostsHaveNames(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{LANHosts: 2})
	labtest.Servers(t, topology)
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	labtest.Must(t, os.WriteFile(hosts, nil, 0o644))
	g := newGateway(t, topology.Gateway, datapath(t))
	g.write(inTurn)
	g.execIn(fmt.Sprintf("mount --bind %s /etc/hosts && mount --bind %s /var/lib/misc", hosts, dir))
	t.Cleanup(g.stop)
	g.await()
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	written, leased := w.Hosts[0], w.Hosts[1]
	labtest.Must(t, visitFor(leased.Namespace, lab.ServerAddrs[0], visitPatience).err)
	if out := w.command("sessions", "--json"); strings.Contains(out, `"host"`) || !strings.Contains(out, written.Addr.String()) {
		t.Errorf("before they have names:\n%s", out)
	}
	labtest.Must(t, os.WriteFile(hosts, []byte(written.Addr.String()+" toms-laptop.home toms-laptop\n"), 0o644))
	w.lease(leased, "living-room-tv", filepath.Join(dir, "dnsmasq.leases"))
	w.awaitName(written, "toms-laptop.home")
	w.awaitName(leased, "living-room-tv")
	if list := w.sorted(api.Filter{Sort: api.SortAge, Match: "living-room"}); len(list) == 0 || list[0].Inside.Addr() != leased.Addr {
		t.Errorf("found by the name: %+v", list)
	}
	if out := w.command("top"); !strings.Contains(out, "living-room-tv") {
		t.Errorf("not shown:\n%s", out)
	}
}

// lease has a host say its name to dnsmasq, which gives it the address that it has.
func (w world) lease(h *lab.Host, name, file string) {
	w.t.Helper()
	server := startPeer(w.t, w.Gateway, "dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=",
		"--interface="+lab.DeviceLAN, "--bind-interfaces", "--dhcp-range="+h.Addr.String()+","+h.Addr.String(), "--no-ping", "--dhcp-authoritative",
		"--dhcp-leasefile="+file)
	w.t.Cleanup(func() { endPeer(&server) })
	ask := h.Command(labtest.Context(w.t), "busybox", "udhcpc", "-f", "-n", "-q", "-t", "20", "-T", "1", "-i", lab.DeviceHost, "-s", "/bin/true", "-x", "hostname:"+name)
	out, err := ask.CombinedOutput()
	if err != nil {
		w.t.Fatalf("no lease: %v, %s", err, out)
	}
}

// awaitName waits until sessions of a host have its name.
func (w world) awaitName(h *lab.Host, name string) {
	w.t.Helper()
	eventually(w.t, name, func() bool {
		return strings.Contains(w.command("sessions", "--json", "--inside", h.Addr.String()), fmt.Sprintf(`"host": %q`, name))
	})
}
