package e2e

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"

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

// forwardedV6Of is how many while do runs.
func (w world) forwardedV6Of(do func()) uint64 {
	before := w.forwardedV6()
	do()
	return w.forwardedV6() - before
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
			received, sent := w.totals()
			forwarded := w.forwardedV6Of(func() { testBulk(t, w, ns) })
			if forwarded > few { // for a moment after routes may have changed, as at the beginning, the host's are asked
				forwarded = w.forwardedV6Of(func() { testBulk(t, w, ns) })
			}
			_, handedNow := w.handed()
			receivedNow, sentNow := w.totals()
			if n := handedNow - handed; n > bulkBytes/100 {
				t.Errorf("%d bytes of 4 × %d came to the daemon", n, bulkBytes)
			}
			if forwarded > few {
				t.Errorf("the host forwarded %d packets", forwarded)
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
		v4, v6 := w.forwardedOfBoth(t)
		if (v4 < fewForwarded) != c.v4 || (v6 < fewForwarded) != c.v6 { // as in TestKernelCarriesIPv6
			v4, v6 = w.forwardedOfBoth(t)
		}
		if (v4 < fewForwarded) != c.v4 || (v6 < fewForwarded) != c.v6 {
			t.Errorf("with rules for %s, the host forwarded %d packets of IPv4 and %d of IPv6", name, v4, v6)
		}
		remove()
		eventually(t, "both shortcuts", func() bool { s := w.status(); return s.LANShortcut && s.LANShortcutIPv6 })
	}
}

// forwardedOfBoth is how many packets the host forwards in bulk transfers of the LAN over either family.
func (w world) forwardedOfBoth(t *testing.T) (v4, v6 uint64) {
	t.Helper()
	v4, v6 = w.forwarded(), w.forwardedV6()
	for _, f := range []*family{overIPv4, overIPv6} {
		w.family = f
		testBulk(t, w, w.lan)
	}
	return w.forwarded() - v4, w.forwardedV6() - v6
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
