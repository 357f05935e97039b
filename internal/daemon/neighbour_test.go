package daemon

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/uplinks"
	"tapgw/uplinks/rtnl"
)

func TestGatewaysAreReleased(t *testing.T) {
	ns := labtest.Namespace(t, "host")
	labtest.Must(t, addDefault(ns))
	index, err := ns.Index("wan")
	labtest.Must(t, err)
	d := newTestDaemon(t)
	d.snapshot.Store(uplinks.NewSnapshot([]*uplinks.Uplink{{Name: "wan", Index: index, Side: uplinks.Side{Gateway: netip.MustParseAddr("192.0.2.1")}}}))
	labtest.Must(t, ns.Do(func() (err error) {
		d.kernel, err = rtnl.Open()
		return err
	}))
	defer d.kernel.Close()
	d.keepNeighbours(d.snapshot.Load())
	if managed(t, ns, index) != 1 {
		t.Fatal("the gateway is not kept")
	}
	d.releaseNeighbours()
	if managed(t, ns, index) != 0 {
		t.Error("the kernel goes on probing the gateway")
	}
}

// managed counts the neighbours that the kernel keeps fresh by itself.
func managed(t *testing.T, ns *lab.Namespace, index int) (n int) {
	t.Helper()
	list, err := ns.Handle().NeighList(index, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, neighbour := range list {
		if neighbour.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			n++
		}
	}
	return n
}
