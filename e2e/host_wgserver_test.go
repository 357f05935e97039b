package e2e

import (
	"context"
	"crypto/ecdh"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/lab/labwg"
)

// TestHostWireGuardServer: a WireGuard server of the host answers by the uplink where it is spoken to, also when its client
// turns to the other.
func TestHostWireGuardServer(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	key, peer := newKey(t), newKey(t)
	openServer(t, w.Gateway, peer, key.PublicKey(), "10.99.0.2/32")
	servers, err := lab.StartServers(w.Gateway)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
	w.awaitServices()
	client := openTunnel(t, w.Internet, clientWG, key)
	for range 2 {
		for _, u := range w.Uplinks {
			labtest.Must(t, client.turnTo(peer.PublicKey(), netip.AddrPortFrom(u.Addr(), labwg.Port)))
			eventually(t, "an answer by "+u.Device, func() bool {
				return visitFor(w.Internet, serverWG.Addr(), time.Second).err == nil
			})
			testInTunnel(t, w.Internet)
			if at := client.endpoint(t); at.Addr() != u.Addr() || at.Port() != labwg.Port {
				t.Errorf("asked at %s, answered from %s", u.Addr(), at)
			}
		}
	}
	online(t, w.lan)
}

// awaitServices waits until the daemon knows of the UDP services that the host has now.
func (w world) awaitServices() {
	w.t.Helper()
	serveUDP(w.t, w.Gateway, netip.AddrPortFrom(netip.IPv4Unspecified(), portEphemeral))
	eventually(w.t, "an answer from where it was asked", func() bool {
		ctx, cancel := context.WithTimeout(labtest.Context(w.t), 200*time.Millisecond)
		defer cancel()
		return askService(ctx, w.Internet, netip.AddrPortFrom(w.Uplinks[0].Addr(), portEphemeral), 1) == nil
	})
}

// turnTo gives the tunnel its only peer, or that one another endpoint.
func (w *tunnel) turnTo(peer *ecdh.PublicKey, at netip.AddrPort) error {
	return w.IpcSet(fmt.Sprintf("public_key=%x\nendpoint=%s\nallowed_ip=%s\n", peer.Bytes(), at, serverWG.Masked()))
}
