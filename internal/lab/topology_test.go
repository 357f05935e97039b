package lab_test

import (
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestKernelRoutesTheTopology(t *testing.T) {
	start := time.Now()
	topo := labtest.Build(t, lab.Options{})
	t.Logf("up after %v", time.Since(start))
	labtest.Servers(t, topo)
	labtest.Must(t, topo.Masquerade())
	ctx := labtest.Context(t)
	outside, err := topo.Hosts[0].WhoAmI(ctx, lab.ServerAddrs[0])
	labtest.Must(t, err)
	if outside.Addr() != topo.Uplinks[0].Addr() {
		t.Errorf("seen from outside as %s, want %s", outside, topo.Uplinks[0].Addr())
	}
}
