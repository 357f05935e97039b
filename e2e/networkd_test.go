package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// manageByNetworkd lets systemd-networkd have the uplinks, and all TAPs, as those of virtual machines may be.
func manageByNetworkd(m *machine, topology *lab.Topology) {
	m.t.Helper()
	for _, u := range topology.Uplinks {
		m.write("/etc/systemd/network/50-"+u.Device+".network", "[Match]\nName="+u.Device+
			"\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nAddress="+u.Link.Near.Prefix.String()+
			fmt.Sprintf("\n[Route]\nGateway=%s\nMetric=%d\n", u.NextHop(), u.Metric()))
	}
	m.write("/etc/systemd/network/80-taps.network", "[Match]\nKind=tun\n[Network]\nDHCP=yes\n")
	m.run("systemctl", "enable", "--now", "systemd-networkd") // whoever calls an enabled one on the bus waits until it is there
	m.run("networkctl", "reconfigure", "wan1", "wan2")        // removes the routes of the laboratory's
}

// TestNetworkd: the real systemd-networkd leaves our devices alone. Routes and rules of ours that it removes, as it does with all that are
// not its own when it configures an uplink, are put back at once, while host and LAN are online.
func TestNetworkd(t *testing.T) {
	t.Parallel()
	for _, on := range []string{api.DatapathKernel, api.DatapathUserspace} {
		t.Run(on, func(t *testing.T) {
			t.Parallel()
			s, _ := serveBeside(t, func(m *machine, topology *lab.Topology) {
				m.write("/etc/systemd/system/tapgw.service.d/datapath.conf", "[Service]\nEnvironment=TAPGW_DATAPATH_MODE="+on+"\n")
				manageByNetworkd(m, topology)
			})
			testNetworkd(t, s.neighbourhood())
		})
	}
}

func testNetworkd(t *testing.T, n neighbourhood) {
	n.expectUnmanagedByNetworkd()
	onSecond := n.connect(n.lan, "wan2")
	inPlace := n.settledState()
	n.expectRestart("systemd-networkd")
	n.expectReconfigured(inPlace)
	n.carries("after all")
	labtest.Must(t, onSecond.talk())
	n.expectCaptured()
	n.expectUnmanagedByNetworkd()
}

// expectReconfigured has systemd-networkd configure wan1 anew, which takes its address and all routes away for a moment.
func (n neighbourhood) expectReconfigured(inPlace lab.State) {
	n.t.Helper()
	index, err := n.Gateway.Index("wan1")
	labtest.Must(n.t, err)
	d := n.expectFollowed("reconfigured", func(since time.Time) time.Time {
		n.t.Helper()
		n.routes.await("its own route", since, func(c routeChange) bool { // comes last
			return c.Type == unix.RTM_NEWROUTE && isDefault(c) && c.LinkIndex == index
		})
		n.awaitAsBefore(inPlace)
		n.awaitState("wan1", api.StateUp)
		return time.Now()
	}, "networkctl", "reconfigure", "wan1")
	d.expectOnline(d.untilFollowed())
}

// expectUnmanagedByNetworkd waits until systemd-networkd says that our devices are none of its own.
func (s served) expectUnmanagedByNetworkd() {
	s.t.Helper()
	for _, device := range []string{"tapgw0", "tapgw0u"} {
		eventually(s.t, "systemd-networkd's leaving "+device+" alone", func() bool {
			line, err := s.try("networkctl", "--no-legend", "list", device)
			return err == nil && strings.HasSuffix(line, " unmanaged")
		})
	}
}
