package e2e

import (
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostPathMTUBlackhole is fault 34: no server hears that its segments are too big for the uplink, which hosts must not let
// them become.
func TestHostPathMTUBlackhole(t *testing.T) {
	t.Parallel()
	w := beginWith(t, lab.Options{Uplinks: []lab.UplinkOptions{{MTU: 1400}}}, "", func(topology *lab.Topology) {
		nftablesRules(t, topology.Internet, `table ip eaten {
	chain input {
		type filter hook input priority filter; policy accept;
		icmp type destination-unreachable drop
	}
}
`)
	})
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		ctx := labtest.Context(t)
		if _, err := ns.BulkDownload(ctx, lab.ServerAddrs[0], 1, 1<<20); err != nil {
			t.Errorf("%s: download: %v", name, err)
		}
		if _, err := ns.BulkUpload(ctx, lab.ServerAddrs[0], 2, 1<<20); err != nil {
			t.Errorf("%s: upload: %v", name, err)
		}
	}
}
