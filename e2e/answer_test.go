package e2e

import (
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestKernelCarriesAnswers: of many connections in a short time the daemon gets the SYNs, and hardly a packet more: what accepts
// them is the kernel's to carry. Captures verify each packet.
func TestKernelCarriesAnswers(t *testing.T) {
	t.Parallel()
	const connections = 200
	w := beginShortcutV6(t, inTurn)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		for _, f := range []*family{overIPv4, overIPv6} {
			t.Run(name+" "+f.name, func(t *testing.T) {
				before, _ := w.handed()
				for range connections {
					_, err := ns.WhoAmI(labtest.Context(t), f.servers[0])
					labtest.Must(t, err)
				}
				now, _ := w.handed()
				t.Logf("%d packets of %d connections", now-before, connections)
				if n := now - before; n < connections || n > connections*3/2 {
					t.Errorf("%d packets of %d connections came to the daemon", n, connections)
				}
			})
		}
	}
}
