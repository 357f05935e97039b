package e2e

import (
	"crypto/ecdh"
	"net"
	"net/netip"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/internal/lab/labwg"
)

// markWG is of encapsulated packets, and the number of the table, as wg-quick has them.
const markWG = labwg.Port

// Addresses inside the tunnel.
var (
	serverWG = labwg.Server
	clientWG = labwg.Client
)

// tunnel is one end of a WireGuard tunnel that lives as long as the test.
type tunnel struct{ *labwg.Tunnel }

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := labwg.NewKey()
	labtest.Must(t, err)
	return key
}

// openTunnel makes one end with a configuration in WireGuard's own format, less the key.
func openTunnel(t testing.TB, ns *lab.Namespace, address netip.Prefix, key *ecdh.PrivateKey, config ...string) *tunnel {
	t.Helper()
	w, err := labwg.Open(ns, address, key, func(complaint string) { t.Log(complaint) }, config...)
	labtest.Must(t, err)
	t.Cleanup(w.Close)
	return &tunnel{w}
}

// openServer makes the end that is spoken to first, for one client with these inner addresses.
func openServer(t testing.TB, ns *lab.Namespace, key *ecdh.PrivateKey, client *ecdh.PublicKey, allowed ...string) *tunnel {
	t.Helper()
	return openTunnel(t, ns, serverWG, key, labwg.ServerConfig(client, allowed...)...)
}

// openInternetServer is openServer for one that answers from where it is asked.
func openInternetServer(t testing.TB, internet *lab.Namespace, key *ecdh.PrivateKey, client *ecdh.PublicKey, allowed ...string) *tunnel {
	t.Helper()
	labtest.Must(t, labwg.AnswerFromServer(internet))
	return openServer(t, internet, key, client, allowed...)
}

// openClient makes the end that speaks first, for everything.
func openClient(t testing.TB, ns *lab.Namespace, key *ecdh.PrivateKey, server *ecdh.PublicKey, config ...string) *tunnel {
	t.Helper()
	return openTunnel(t, ns, clientWG, key, append(config, labwg.ClientConfig(server, 1)...)...)
}

// route leads into the tunnel.
func (w *tunnel) route(t testing.TB, to netip.Prefix, metric, table int) {
	t.Helper()
	labtest.Must(t, w.Route(to, metric, table))
}

// endpoint is where the tunnel's other end was heard last.
func (w *tunnel) endpoint(t testing.TB) netip.AddrPort {
	t.Helper()
	at, err := w.Endpoint()
	labtest.Must(t, err)
	return at
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
