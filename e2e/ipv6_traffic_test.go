package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestIPv6Traffic is TestTraffic over IPv6.
func TestIPv6Traffic(t *testing.T) {
	for name, offloads := range map[string]*lab.Offloads{"offloads on": nil, "offloads off": {}} {
		t.Run(name, func(t *testing.T) {
			w := beginV6(t, lab.Options{Offloads: offloads}, inTurn)
			watchAll(t, w)
			for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
				t.Run(name, func(t *testing.T) {
					expectAllUplinks(t, w, visitAll(t, w, ns))
					testTraffic(t, w, ns)
				})
			}
		})
	}
}

// TestIPv6IsPreferred: programs of the host that connect to a name with addresses of both families take IPv6, and from the
// address of the TAP.
func TestIPv6IsPreferred(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	c, err := w.Gateway.Dial(labtest.Context(t), "tcp", netip.AddrPortFrom(w.family.servers[0], lab.PortTCPEcho).String())
	labtest.Must(t, err)
	defer c.Close()
	from := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	if !from.IsGlobalUnicast() || from.IsPrivate() || from == w.Uplinks[0].AddrV6() || from == w.Uplinks[1].AddrV6() {
		t.Errorf("connected from %s", from)
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	text := lab.ServerAddrs[0].String() + " server.test\n" + w.family.servers[0].String() + " server.test\n"
	labtest.Must(t, os.WriteFile(hosts, []byte(text), 0o644))
	const script = `mount --bind "$0" /etc/hosts && getent ahosts server.test && curl -s http://server.test/whoami`
	out, err := w.Gateway.Command(labtest.Context(t), "unshare", "-m", "sh", "-c", script, hosts).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !strings.HasPrefix(lines[0], w.family.servers[0].String()) {
		t.Errorf("the resolver says first %s", lines[0])
	}
	seen, err := netip.ParseAddrPort(lines[len(lines)-1])
	if err != nil || seen.Addr() != w.Uplinks[0].AddrV6() && seen.Addr() != w.Uplinks[1].AddrV6() {
		t.Errorf("curl was seen as %s (%v)", seen, err)
	}
}

// TestIPv6UnusualUplinks: IPv6 of an ordinary uplink, one that takes less, and one without Ethernet headers, from the host and the LAN.
func TestIPv6UnusualUplinks(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {MTU: smallestMTU}, {HeaderLess: true}}}, inTurn)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
		watch(t, w.Internet, u.ISP.Name(), "", nil)
		_, err := w.Internet.Ping(labtest.Context(t), u.AddrV6())
		labtest.Must(t, err)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			expectAllUplinks(t, w, visitAll(t, w, ns))
			testUDP(t, w, ns)
			testRefused(t, w, ns)
			for range w.Uplinks {
				labtest.Must(t, pingLarge(labtest.Context(t), ns, w.family.servers[0], 1000))
			}
		})
	}
	testServices(t, w)
}
