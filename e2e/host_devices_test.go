package e2e

import (
	"testing"

	"tapgw/internal/lab"
)

// uplinkRules let in by the uplinks only what belongs to connections of this host, and nothing for addresses that nobody has on the
// Internet; they say nothing of other devices.
const uplinkRules = `table inet careful {
	chain bogons {
		type filter hook prerouting priority raw; policy accept;
		iifname { "wan1", "wan2" } ip daddr 198.18.0.0/15 drop
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname { "wan1", "wan2" } ct state { established, related } accept
		iifname { "wan1", "wan2" } drop
	}
}
`

// TestHostFirewallOfUplinks: where rules for the devices of uplinks would meet replies to the host itself, these come by the TAP on both
// datapaths.
func TestHostFirewallOfUplinks(t *testing.T) {
	t.Parallel()
	w := beginWith(t, lab.Options{}, inTurn, func(topology *lab.Topology) { nftablesRules(t, topology.Gateway, uplinkRules) })
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			testBulk(t, w, ns)
			testUDP(t, w, ns)
		})
	}
}
