package e2e

import (
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestTrafficPriorityTagged: all that the providers and the LAN send carries a tag with a priority and no VLAN, as with some
// fibre lines, and nobody notices. The host's stack answers nothing of ours, and the kernel carries what it carries else.
func TestTrafficPriorityTagged(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	for _, u := range topology.Uplinks {
		labtest.Must(t, u.ISP.TagPriority(lab.DeviceCustomer, 5))
	}
	labtest.Must(t, topology.Hosts[0].TagPriority(lab.DeviceHost, 0))
	g := start(t, topology.Gateway, inTurn)
	g.awaitUp(topology)
	w := world{g, topology, topology.Hosts[0].Namespace, g.record()}
	w.meetLAN()
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
		watch(t, u.ISP, lab.DeviceCustomer, "that are resets of the host", func(p *lab.Packet) bool {
			return !p.Outgoing && p.TCP != nil && p.TCP.RST && p.Dst.Port() == lab.PortBulk
		})
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			_, before := w.handed()
			testTraffic(t, w, ns)
			if _, after := w.handed(); w.datapath == api.DatapathKernel && after-before > bulkBytes/4 {
				t.Errorf("%d bytes came to the daemon", after-before)
			}
		})
	}
}
