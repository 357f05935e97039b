package e2e

import (
	"net/netip"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostTailscale: with Tailscale's rules, routes and marks, there before us or coming while we run, its peers, the hosts of the LAN that
// it makes reachable, and a phone that goes out here are served, host and LAN use every uplink, and its going does no harm to ours.
func TestHostTailscale(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]bool{"Tailscale first": true, "gateway first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n *tailnet
			w := beginWith(t, lab.Options{}, inTurn, func(topology *lab.Topology) {
				if first {
					n = joinTailnet(t, topology)
				}
			})
			conns := w.connectAll()
			if !first {
				n = joinTailnet(t, w.Topology)
				for _, c := range conns {
					labtest.Must(t, c.talk())
				}
			}
			for _, u := range w.Uplinks {
				watchUplink(t, w.Gateway, u)
			}
			begun := time.Now()
			testTailnet(t, w, n)
			testTailscaleRestart(t, w, n)
			w.events.none(0, begun, isRepair)
		})
	}
}

func testTailnet(t *testing.T, w world, n *tailnet) {
	for _, ns := range []*lab.Namespace{w.Gateway, w.lan} {
		servers, err := lab.StartServers(ns)
		labtest.Must(t, err)
		t.Cleanup(func() { labtest.Must(t, servers.Close()) })
	}
	t.Run("peers", func(t *testing.T) { expectPeers(t, w) })
	t.Run("hosts of the LAN", func(t *testing.T) {
		labtest.Must(t, askStream(t, w.Internet, netip.AddrPortFrom(w.Hosts[0].Addr, lab.PortTCPEcho)))
	})
	t.Run("the rest", func(t *testing.T) {
		expectAllUplinks(t, w, visitAll(t, w, w.lan))
		expectAllUplinks(t, w, visitAll(t, w, w.Gateway))
	})
	t.Run("exit node of a phone", func(t *testing.T) { expectAllUplinks(t, w, visitAll(t, w, n.phone)) })
	t.Run("exit node of ours", func(t *testing.T) {
		stop := n.useExitNode()
		defer stop()
		w.expectInTunnel(w.Gateway, tailscaleSelf.Addr())
		w.expectAnswersBeside(tailscaleName)
		for _, u := range w.Uplinks {
			if state := w.uplink(u.Device).State; state != api.StateUp {
				t.Errorf("%s is %s", u.Device, state)
			}
		}
	})
	w.expectRoaming(n.peer, w.Gateway, tailscalePeer.Addr())
	w.awaitUp(w.Topology)
}

// expectPeers fails the test unless the gateway and its peer reach each other in the tailnet.
func expectPeers(t *testing.T, w world) {
	t.Helper()
	labtest.Must(t, askStream(t, w.Gateway, netip.AddrPortFrom(tailscalePeer.Addr(), lab.PortTCPEcho)))
	labtest.Must(t, askStream(t, w.Internet, netip.AddrPortFrom(tailscaleSelf.Addr(), lab.PortTCPEcho)))
}

// testTailscaleRestart takes all that is Tailscale's away and brings it back.
func testTailscaleRestart(t *testing.T, w world, n *tailnet) {
	conns := w.connectAll()
	inPlace := w.settledState()
	n.down()
	expectAllUplinks(t, w, visitAll(t, w, w.lan))
	expectAllUplinks(t, w, visitAll(t, w, w.Gateway))
	n.up()
	expectPeers(t, w)
	w.awaitAsBefore(inPlace)
	for _, c := range conns {
		labtest.Must(t, c.talk())
	}
}
