package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestFault11_DeadDNS: an uplink by which everything works but names is avoided, as soon as hosts ask for some in vain.
func TestFault11_DeadDNS(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	begun := time.Now()
	nftablesRules(t, w.Uplinks[0].ISP, "table ip dead {\n chain forward { type filter hook forward priority 0; udp dport 53 drop; }\n}\n")
	visits := keepVisiting(t, w.lan)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	ask := func(ctx context.Context) error {
		_, err := w.lan.Resolve(ctx, lab.ProbeTargets[0], "ip4", "one.one.one.one")
		return err
	}
	for range 6 {
		asking.Go(func() {
			for ctx.Err() == nil {
				_ = ask(ctx) // in vain, until the uplink is avoided
			}
		})
	}
	w.avoided(visits, begun, "names are not resolved")
	cancel()
	asking.Wait()
	for range 10 {
		begun := time.Now()
		if err := ask(labtest.Context(t)); err != nil || time.Since(begun) > 2*time.Second { // a client asks again after 5 s
			t.Errorf("a name after %s: %v", time.Since(begun), err)
		}
	}
}

// TestFault14_LyingDNS: an uplink whose provider answers for all names itself, as a portal does, is avoided, and it is told which lie it
// was.
func TestFault14_LyingDNS(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	liar := topology.Uplinks[0]
	lies := lab.Zone{}
	for name := range lab.Known {
		lies[name] = []string{liar.NextHop().String()}
	}
	names, err := lab.StartNames(liar.ISP, liar.NextHop(), lies)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, names.Close()) })
	nftablesRules(t, liar.ISP, fmt.Sprintf(`table ip liar { chain in {
		type nat hook prerouting priority dstnat;
		iifname %s udp dport 53 dnat to %s
	}
}
`, lab.DeviceCustomer, liar.NextHop()))
	g := start(t, topology.Gateway, inTurn)
	g.awaitState(liar.Device, api.StateDegraded)
	g.awaitState(topology.Uplinks[1].Device, api.StateUp)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	begun := time.Now()
	visits := keepVisiting(t, w.lan)
	visits.by(w.Uplinks[1].Addr(), begun.Add(20*visitPace))
	visits.onlyBy(w.Uplinks[1], begun, time.Now())
	w.showsDegraded(liar, fmt.Sprintf("1.1.1.1: says %s for one.one.one.one", liar.NextHop()))
}
