package e2e

import (
	"strings"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestLaptopIsNoRouter: without hosts behind it, the gateway forwards nothing; with some, only where it must.
func TestLaptopIsNoRouter(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, "")
	g.awaitUp(topology)
	online(t, topology.Gateway)
	devices := []string{"all", "default", "lo", lab.DeviceLAN, "wan1", "wan2", "tapgw0", "tapgw0u"}
	forwarding := func() (on []string) {
		for _, d := range devices {
			v, err := topology.Gateway.ReadSysctl("net/ipv4/conf/" + d + "/forwarding")
			labtest.Must(t, err)
			if v == "1" {
				on = append(on, d)
			}
		}
		return on
	}
	if on := forwarding(); len(on) > 0 {
		t.Errorf("a host alone forwards on %v", on)
	}
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	w.meetLAN()
	eventually(t, "forwarding on lan0, the uplinks and the TAP", func() bool {
		return strings.Join(forwarding(), " ") == "lan0 wan1 wan2 tapgw0"
	})
}
