package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// pppMTU is what PPPoE leaves of Ethernet's (RFC 2516 §7).
const pppMTU = 1492

// beginPPP has an uplink that looks as pppd's do: no header, no gateway's address, a smaller MTU.
func beginPPP(t testing.TB) world {
	t.Helper()
	return begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{HeaderLess: true, MTU: pppMTU}, {}}}, waiting(inTurn))
}

// TestPPPSegmentSize: both ends of a connection by PPPoE are told what fits.
func TestPPPSegmentSize(t *testing.T) {
	t.Parallel()
	w := beginPPP(t)
	if u := w.uplink("wan1"); u.Gateway.IsValid() {
		t.Errorf("the gateway is %s", u.Gateway)
	}
	opens := func(ns *lab.Namespace, device string, outgoing bool) *lab.Capture {
		c, err := ns.StartCapture(device, func(p *lab.Packet) bool { return p.TCP != nil && p.TCP.SYN && p.Outgoing == outgoing })
		labtest.Must(t, err)
		return c
	}
	out, in := opens(w.Gateway, "wan1", true), opens(w.lan, lab.DeviceHost, false)
	port := portOf(w.connect(w.lan, "wan1"))
	for name, c := range map[string]*lab.Capture{"server": out, "client": in} {
		told := 0
		report, err := c.Stop()
		labtest.Must(t, err)
		for _, p := range report.Kept {
			if c == in && uint16(p.TCP.DstPort) != port {
				continue // by the other uplink
			}
			expectMSS(t, p, pppMTU-40)
			told++
		}
		if told == 0 {
			t.Errorf("the %s was told nothing", name)
		}
	}
}

// TestFault19_55_PPPReconnects: the device of a PPP session that ended comes back with another number and another address, and without
// a default route, as pppd adds none where there is one. Only that uplink's sessions notice.
func TestFault19_55_PPPReconnects(t *testing.T) {
	t.Parallel()
	w := beginPPP(t)
	first, second := w.Uplinks[0], w.Uplinks[1]
	index, err := w.Gateway.Index("wan1")
	labtest.Must(t, err)
	onFirst, onSecond := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan2")
	visits := keepVisiting(t, w.lan)
	begun := time.Now()
	labtest.Must(t, first.Unplug())
	gone := time.Now()
	w.events.state("wan1", api.StateDown, begun)
	visits.by(second.Addr(), gone.Add(carrierBound))

	link := first.Link
	link.Near.Prefix, link.Far.Prefix = netip.MustParsePrefix("192.0.2.77/32"), netip.MustParsePrefix("192.0.2.1/32")
	back := time.Now()
	labtest.Must(t, link.Replug())
	route(t, w.Internet, link.Near.Prefix, backboneOf(first))
	w.events.state("wan1", api.StateUp, back)
	if again, err := w.Gateway.Index("wan1"); err != nil || again == index || defaultsBy(t, w.Gateway, "wan1") != 0 {
		t.Fatalf("interface %d again (%v), or with a default route", again, err)
	}
	visits.by(first.Addr(), back)
	w.events.await("new address", begun, func(e api.Event) bool {
		return e.Kind == api.EventAddresses && e.Uplink == "wan1" && strings.Contains(e.Message, first.Addr().String())
	})
	if err := onFirst.talk(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a session of the lost address: %v", err)
	}
	labtest.Must(t, onSecond.talk())
	expectOutage(t, visits.stop(), begun, gone.Sub(begun)+carrierBound)
	w.events.none(0, begun, func(e api.Event) bool { return e.Uplink == "wan2" || isRepair(e) })
}
