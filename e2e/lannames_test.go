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

// TestHostsHaveNames: who begins a session is called as /etc/hosts says, from soon after it says so, and is found by that.
func TestHostsHaveNames(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	hosts := filepath.Join(t.TempDir(), "hosts")
	labtest.Must(t, os.WriteFile(hosts, nil, 0o644))
	g := newGateway(t, topology.Gateway, datapath(t))
	g.write(inTurn)
	g.execIn(fmt.Sprintf("mount --bind %s /etc/hosts", hosts))
	t.Cleanup(g.stop)
	g.await()
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	client := w.Hosts[0].Addr.String()
	if out := w.command("sessions", "--json", "--inside", client); strings.Contains(out, `"host"`) || !strings.Contains(out, client) {
		t.Errorf("before it has a name:\n%s", out)
	}
	labtest.Must(t, os.WriteFile(hosts, []byte(client+" toms-laptop.home toms-laptop\n"), 0o644))
	eventually(t, "the name", func() bool {
		return strings.Contains(w.command("sessions", "--json", "--inside", client), `"host": "toms-laptop.home"`)
	})
	if list := w.sorted(api.Filter{Sort: api.SortAge, Match: "toms-laptop"}); len(list) == 0 || list[0].Inside.Addr() != w.Hosts[0].Addr {
		t.Errorf("found by the name: %+v", list)
	}
	if out := w.command("top"); !strings.Contains(out, "toms-laptop") {
		t.Errorf("not shown:\n%s", out)
	}
}
