package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestUnusualUplinks: from the host, the LAN and behind an inner router, by each of an ordinary uplink, one with the same
// subnet and gateway address, and one without Ethernet headers.
func TestUnusualUplinks(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{InnerRouter: true, Uplinks: []lab.UplinkOptions{{}, {Twin: 1}, {HeaderLess: true}}}, inTurn)
	if a, b := w.Uplinks[0], w.Uplinks[1]; a.NextHop() != b.NextHop() || a.Addr() == b.Addr() {
		t.Fatalf("not twins: %s by %s, %s by %s", a.Addr(), a.NextHop(), b.Addr(), b.NextHop())
	}
	for _, u := range w.Uplinks {
		watchUplink(t, w.Gateway, u)
		watch(t, w.Internet, u.ISP.Name(), "", nil)
		back := w.Internet
		if _, err := back.Ping(labtest.Context(t), u.Addr()); err != nil {
			t.Errorf("%s: %v", u.Device, err)
		}
	}
	for name, ns := range map[string]*lab.Namespace{"host": w.Gateway, "lan": w.lan, "inner": w.InnerHost.Namespace} {
		t.Run(name, func(t *testing.T) {
			expectAllUplinks(t, w, visitAll(t, w, ns))
			testUDP(t, w, ns)
			testRefused(t, w, ns)
		})
	}
}

// visitAll opens connections of each kind by uplinks that take turns, and returns what the servers saw.
func visitAll(t testing.TB, w world, ns *lab.Namespace) map[netip.Addr]bool {
	t.Helper()
	ctx, server := labtest.Context(t), w.family.servers[0]
	used := make(map[netip.Addr]bool)
	for i := 0; i < 4*len(w.Uplinks) && len(used) < len(w.Uplinks); i++ { // others may take turns in between
		outside, err := ns.WhoAmI(ctx, server)
		labtest.Must(t, err)
		used[outside.Addr()] = true
	}
	for name, one := range map[string]func() error{
		"ping":     func() error { _, err := ns.Ping(ctx, server); return err },
		"download": func() error { _, err := ns.BulkDownload(ctx, server, 1, 4<<20); return err },
		"upload":   func() error { _, err := ns.BulkUpload(ctx, server, 2, 4<<20); return err },
	} {
		for i := range w.Uplinks {
			if err := one(); err != nil {
				t.Errorf("%s %d: %v", name, i, err)
			}
		}
	}
	return used
}

// TestNothingOfOursEntersTheTAP: probes and whatever else the daemon sends leave by their uplink alone (fault 64).
func TestNothingOfOursEntersTheTAP(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "probe: {interval: 100ms, timeout: 100ms, targets: [1.1.1.1, 'tcp://9.9.9.9:443', 'arp://gateway']}\n")
	watch(t, w.Gateway, "tapgw0", "of the daemon's own", func(p *lab.Packet) bool {
		return p.IP != nil && p.Src.Addr() != lab.ServerAddrs[0] && p.Dst.Addr() != lab.ServerAddrs[0]
	})
	probes := 0
	for _, u := range w.Uplinks {
		c := watchUplink(t, w.Gateway, u)
		for _, target := range []string{"1.1.1.1", "9.9.9.9"} {
			for range 5 {
				_, err := c.Await(labtest.Context(t), func(p *lab.Packet) bool {
					return p.IP != nil && p.Outgoing && p.Dst.Addr() == netip.MustParseAddr(target)
				})
				labtest.Must(t, err)
				probes++
			}
		}
	}
	online(t, w.Gateway) // through the TAP, while the capture runs
	online(t, w.lan)
	t.Logf("%d probes seen", probes)
}

// TestMulticastKeepsItsDevice is fault 63: multicast and broadcast of the host leave by the device they had, with the source
// they had; none is translated, nor is what gets into the TAP nevertheless.
func TestMulticastKeepsItsDevice(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	ctx := labtest.Context(t)
	destinations := []string{"224.0.0.251", "239.255.255.250", "255.255.255.255"}
	local := func(p *lab.Packet) bool { return p.UDP != nil && p.Outgoing && p.UDP.DstPort == 5353 }
	watch(t, w.Gateway, "tapgw0", "that belong on a link", local)
	first := watchUplink(t, w.Gateway, w.Uplinks[0])
	watch(t, w.Gateway, w.Uplinks[1].Device, "that belong on another link", local)
	for _, to := range destinations {
		_, err := first.AwaitAfter(ctx, func(p *lab.Packet) bool {
			return local(p) && p.Dst.Addr() == netip.MustParseAddr(to) && p.Src.Addr() == w.Uplinks[0].Addr()
		}, func() error { return announce(ctx, w.Gateway, to) })
		if err != nil {
			t.Errorf("%s did not leave by the first uplink: %v", to, err)
		}
	}
	pushIntoTAP(t, w, append(destinations, "169.254.1.1", "127.0.0.2", "0.0.0.0"))
	online(t, w.Gateway)
}

// pushIntoTAP puts on the TAP what the kernel does not route there, and wants each packet dropped for its address.
func pushIntoTAP(t testing.TB, w world, destinations []string) {
	t.Helper()
	const counter = `tapgw_packets_dropped_total{reason="bad_address"}`
	before := w.metric(counter)
	tap := ethernet(tapMAC, routerMAC)
	sources := []string{"198.18.73.1", "0.0.0.0", "169.254.7.7"}
	for _, from := range sources {
		for _, to := range append(destinations, lab.ServerAddrs[0].String()) {
			header := ip4(netip.MustParseAddr(from), netip.MustParseAddr(to))
			inject(t, w.Gateway, "tapgw0", frame(t, tap, header, &layers.UDP{SrcPort: 68, DstPort: 67}, gopacket.Payload(marker)))
		}
	}
	want := float64(len(sources)*(len(destinations)+1) - 1) // one is as it should be
	eventually(t, "the drops", func() bool { return w.metric(counter)-before >= want })
}

// announce sends one datagram to a group or to everyone.
func announce(ctx context.Context, ns *lab.Namespace, to string) error {
	conn, err := ns.Dial(ctx, "udp4", to+":5353")
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(conn, "anybody")
	return errors.Join(err, conn.Close())
}
