package e2e

import (
	"net/netip"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestRFC4787_REQ7_Fault17_SameSubnetInsideAndOutside: a provider gives addresses of the subnet that the LAN has, and so does the next.
func TestRFC4787_REQ7_Fault17_SameSubnetInsideAndOutside(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {Twin: 1}}})
	labtest.Servers(t, topology)
	for i, u := range topology.Uplinks {
		customer := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(101 + i)}), 24)
		labtest.Must(t, u.Renumber(customer, netip.MustParsePrefix("10.0.0.100/24")))
	}
	g := start(t, topology.Gateway, inTurn)
	w := world{g, topology, topology.Hosts[0].Namespace, nil}
	g.awaitUp(topology)
	w.meetLAN()
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan} {
		t.Run(name, func(t *testing.T) {
			expectAllUplinks(t, w, visitAll(t, w, ns))
			testUDP(t, w, ns)
			testRefused(t, w, ns)
		})
	}
	_, err := w.Gateway.Ping(labtest.Context(t), w.Hosts[0].Addr)
	labtest.Must(t, err)
}

// TestMW12_ProbesOfTwins: uplinks whose gateways have the same address are probed with the same target, each by its own device
// and source, and when one fails, that one alone is down.
func TestMW12_ProbesOfTwins(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{Uplinks: []lab.UplinkOptions{{}, {Twin: 1}}}, "probe: {interval: 200ms, timeout: 200ms, targets: [1.1.1.1, 'arp://gateway'], quorum: 2}\n")
	target := lab.ProbeTargets[0]
	for _, u := range w.Uplinks {
		c := watchUplink(t, w.Gateway, u)
		_, err := c.Await(labtest.Context(t), func(p *lab.Packet) bool { return p.Outgoing && p.ICMP != nil && p.Dst.Addr() == target })
		labtest.Must(t, err)
	}
	for i, u := range w.Uplinks {
		other := w.Uplinks[1-i]
		begun := time.Now()
		labtest.Must(t, u.Silence(true))
		w.events.state(u.Device, api.StateDown, begun)
		online(t, w.lan)
		healed := time.Now()
		labtest.Must(t, u.Silence(false))
		w.events.state(u.Device, api.StateUp, healed)
		w.events.none(0, begun, func(e api.Event) bool { return e.Uplink == other.Device && leaves(api.StateUp)(e) })
	}
}
