package e2e

import (
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestSmoke(t *testing.T) {
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, "")
	g.awaitUp(topology)
	ctx := labtest.Context(t)
	for range 4 {
		who, err := topology.Gateway.WhoAmI(ctx, lab.ServerAddrs[0])
		labtest.Must(t, err)
		t.Log("host", who)
		who, err = topology.Hosts[0].WhoAmI(ctx, lab.ServerAddrs[0])
		labtest.Must(t, err)
		t.Log("lan", who)
	}
	rtt, err := topology.Hosts[0].Ping(ctx, lab.ServerAddrs[0])
	labtest.Must(t, err)
	t.Log(rtt)
	tr, err := topology.Hosts[0].BulkDownload(ctx, lab.ServerAddrs[0], 1, 2<<30)
	labtest.Must(t, err)
	t.Logf("%.2f Gbit/s", tr.Rate()/1e9)
	tr, err = topology.Hosts[0].BulkUpload(ctx, lab.ServerAddrs[0], 1, 2<<30)
	labtest.Must(t, err)
	t.Logf("%.2f Gbit/s", tr.Rate()/1e9)
	t.Logf("%+v", g.status())
}
