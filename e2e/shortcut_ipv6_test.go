package e2e

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// beginShortcutV6 is beginShortcut for a test of IPv6.
func beginShortcutV6(t testing.TB, config string) world {
	t.Helper()
	w := beginOn(t, lab.Options{IPv6: true}, api.DatapathKernel, config)
	for _, u := range w.Uplinks {
		w.ipv6Is(u.Device, api.StateUp, time.Time{})
	}
	w.family = overIPv6
	w.meetLAN()
	eventually(t, "a LAN shortcut of IPv6", func() bool { s := w.status(); return s.LANShortcutIPv6 && s.LANShortcutIPv6Reason == "" })
	return w
}

// forwardedV6 is how many packets of IPv6 the gateway's own stack has forwarded.
func (w world) forwardedV6() (packets uint64) {
	w.t.Helper()
	labtest.Must(w.t, w.Gateway.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == "Ip6OutForwDatagrams" {
				packets, err = strconv.ParseUint(f[1], 10, 64)
			}
		}
		return err
	}))
	return packets
}

// TestKernelCarriesIPv6: of bulk transfers over IPv6 only the first packets come to the daemon, and those of the LAN pass by the
// host's own forwarding. Captures verify each packet.
func TestKernelCarriesIPv6(t *testing.T) {
	const few = fewForwarded
	w := beginShortcutV6(t, inTurn)
	watch(t, w.Gateway, lab.DeviceLAN, "", nil)
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			_, handed := w.handed()
			forwarded := w.forwardedV6()
			received, sent := w.totals()
			testBulk(t, w, ns)
			_, handedNow := w.handed()
			receivedNow, sentNow := w.totals()
			if n := handedNow - handed; n > bulkBytes/100 {
				t.Errorf("%d bytes of 4 × %d came to the daemon", n, bulkBytes)
			}
			if n := w.forwardedV6() - forwarded; n > few {
				t.Errorf("the host forwarded %d packets", n)
			}
			if receivedNow-received < 2*bulkBytes || sentNow-sent < 2*bulkBytes {
				t.Errorf("the uplinks' figures are %d bytes received, %d sent", receivedNow-received, sentNow-sent)
			}
		})
	}
}

// TestShortcutOfEachFamily: forward rules for one family switch its shortcut off, see its packets, and leave the other's alone.
func TestShortcutOfEachFamily(t *testing.T) {
	t.Parallel()
	w := beginShortcutV6(t, inTurn)
	for name, c := range map[string]struct {
		of     *family
		v4, v6 bool // still on
	}{"IPv4": {overIPv4, false, true}, "IPv6": {overIPv6, true, false}} {
		remove := addForwardRulesOf(t, w.Gateway, c.of.table, [][]expr.Any{{&expr.Counter{}}})
		eventually(t, "the shortcut of "+name+" alone off", func() bool {
			s := w.status()
			return s.LANShortcut == c.v4 && s.LANShortcutIPv6 == c.v6 && contains(s.LANShortcutReason+s.LANShortcutIPv6Reason, "user_filter")
		})
		v4, v6 := w.forwarded(), w.forwardedV6()
		for _, f := range []*family{overIPv4, overIPv6} {
			w.family = f
			testBulk(t, w, w.lan)
		}
		v4, v6 = w.forwarded()-v4, w.forwardedV6()-v6
		if (v4 < fewForwarded) != c.v4 || (v6 < fewForwarded) != c.v6 {
			t.Errorf("with rules for %s, the host forwarded %d packets of IPv4 and %d of IPv6", name, v4, v6)
		}
		remove()
		eventually(t, "both shortcuts", func() bool { s := w.status(); return s.LANShortcut && s.LANShortcutIPv6 })
	}
}

// TestShortcutAndUnusualIPv6: datagrams in pieces pass, and not by the host's forwarding.
func TestShortcutAndUnusualIPv6(t *testing.T) {
	t.Parallel()
	const rounds = 100
	w := beginShortcutV6(t, inTurn)
	conn, err := w.lan.ListenPacket("udp6", "[::]:0")
	labtest.Must(t, err)
	defer conn.Close()
	before := w.forwardedV6()
	for i := range rounds {
		_, err := lab.AskUDP(labtest.Context(t), conn, lab.ServerAddrsV6[0], strings.Repeat("x", 10+i%2*4000))
		labtest.Must(t, err)
	}
	if n := w.forwardedV6() - before; n > fewForwarded {
		t.Errorf("the host forwarded %d packets", n)
	}
}

// TestShortcutOfFirstPackets: those that begin a session pass by the host's own forwarding too, also while its routes change.
func TestShortcutOfFirstPackets(t *testing.T) {
	t.Parallel()
	const (
		sessions = 300
		some     = 20 // of anything else
	)
	w := beginShortcutV6(t, inTurn)
	for name, c := range map[string]struct {
		of        *family
		route     string
		forwarded func() uint64
	}{"IPv4": {overIPv4, "192.0.2.0/24", w.forwarded}, "IPv6": {overIPv6, "2001:db8:99::/64", w.forwardedV6}} {
		t.Run(name, func(t *testing.T) {
			before := c.forwarded()
			for n := range sessions {
				if n%50 == 25 {
					labtest.Must(t, w.Gateway.Handle().RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(c.route)), Type: unix.RTN_UNREACHABLE, Priority: n}))
				}
				conn, err := w.lan.ListenPacket(c.of.udp, c.of.any)
				labtest.Must(t, err)
				_, err = lab.AskUDP(labtest.Context(t), conn, c.of.servers[0], "hello")
				labtest.Must(t, errors.Join(err, conn.Close()))
			}
			if n := c.forwarded() - before; n > some {
				t.Errorf("the host forwarded %d packets of %d sessions", n, sessions)
			}
		})
	}
}
