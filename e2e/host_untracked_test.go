package e2e

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHostUntracked: while nobody's rules meet them, packets of host and LAN stay out of the kernel's connection tracking; while a
// firewall is there they do not, and what lives goes on.
func TestHostUntracked(t *testing.T) {
	t.Parallel()
	w := beginWith(t, lab.Options{}, inTurn, func(*lab.Topology) {})
	expect := func(step string, want bool) {
		t.Helper()
		eventually(t, step, func() bool { // the daemon looks at rules when it is told that they have changed
			for _, ns := range []*lab.Namespace{w.Gateway, w.lan} {
				if w.isTracked(t, ns) != want {
					return false
				}
			}
			return true
		})
	}
	expect("that nothing is tracked", false)
	flows := map[string]*flow{"host": keepAskingUDP(t, w.Gateway), "lan": keepAskingUDP(t, w.lan)}
	conns := []talker{w.connect(w.Gateway, "wan1"), w.connect(w.lan, "wan2")}
	goOn := func() {
		t.Helper()
		expectMoving(t, flows)
		for _, c := range conns {
			labtest.Must(t, c.talk())
		}
	}
	goOn()
	nftablesRules(t, w.Gateway, uplinkRules)
	goOn()
	expect("that rules for other devices change nothing", false)
	nftablesRules(t, w.Gateway, "delete table inet careful")
	nftablesRules(t, w.Gateway, firewalldRules)
	expect("that all is tracked behind a firewall", true)
	goOn()
	nftablesRules(t, w.Gateway, "delete table inet firewalld")
	expect("that nothing is tracked any more", false)
	goOn()
}

// isTracked reports whether the gateway's kernel knows of a new session of a host after it was answered.
func (w world) isTracked(t testing.TB, ns *lab.Namespace) (tracked bool) {
	t.Helper()
	server := netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho)
	conn, err := ns.Dial(labtest.Context(t), "tcp4", server.String())
	labtest.Must(t, err)
	defer conn.Close()
	labtest.Must(t, talker{Conn: conn}.talk())
	port := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
	labtest.Must(t, w.Gateway.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range flows {
			from, to := f.Forward.SrcPort, f.Forward.DstPort // or as if it had begun with an answer
			tracked = tracked || from == port && to == lab.PortTCPEcho || from == lab.PortTCPEcho && to == port
		}
		return err
	}))
	return tracked
}
