package nft

import (
	"net"
	"net/netip"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// turning is what is wanted where packets of the LAN turn back.
func (w *world) turning() Wanted {
	wanted := w.wanted()
	index, err := w.host.Index("lan0")
	w.must(err)
	wanted.Turned = []Turned{{Name: "lan0", Index: index, GiveBackMAC: backMAC}}
	return wanted
}

// TestLANPacketsToThePoolGoToTheTAP: those to either uplink's address, and no others.
func TestLANPacketsToThePoolGoToTheTAP(t *testing.T) {
	for name, n := range uplinkCounts {
		t.Run(name, func(t *testing.T) { lanPacketsToThePoolGoToTheTAP(t, n) })
	}
}

func lanPacketsToThePoolGoToTheTAP(t *testing.T, uplinks int) {
	w := newWorld(t)
	w.apply(crowded(w.turning(), uplinks))
	tap, err := w.sink.StartCapture("eth0", nil)
	w.must(err)
	t.Cleanup(func() { _, _ = tap.Stop() })
	server := w.listen(w.host, otherPort)
	for _, addr := range []string{hostOnISP1, "203.0.113.1"} {
		_, err := tap.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
			return p.TCP != nil && p.TCP.SYN && p.Dst.Addr().String() == addr && p.Dst.Port() == poolPort
		}, func() error { w.syn(w.lan, addr, poolPort); return nil })
		w.must(err)
		w.reach(w.lan, addr, otherPort, server)
	}
	w.reach(w.lan, "192.168.7.1", poolPort, w.listen(w.host, poolPort))
	_, err = w.lan.Ping(labtest.Context(t), prefix(hostOnISP1).Addr())
	w.must(err)
}

// TestFramesGivenBackToTheLANPass, to the same ports.
func TestFramesGivenBackToTheLANPass(t *testing.T) {
	w := newWorld(t)
	neighbour := labtest.Namespace(t, "neighbour")
	w.connect("lan1", "192.168.8.1", neighbour, "192.168.8.2", net.HardwareAddr(backMAC[:]))
	wanted := w.turning()
	wanted.Turned[0].Name = "lan1"
	w.apply(wanted)
	w.reach(neighbour, hostOnISP1, poolPort, w.listen(w.host, poolPort))
}

// TestAllToAndFromStaticHostsGoesToTheTAP: whatever the port and protocol, and only between them and addresses of uplinks.
func TestAllToAndFromStaticHostsGoesToTheTAP(t *testing.T) {
	w := newWorld(t)
	wanted := w.turning()
	wanted.Uplinks[0].Whole = wanted.Uplinks[0].Addresses
	r := w.apply(wanted)
	tap, err := w.sink.StartCapture("eth0", nil)
	w.must(err)
	t.Cleanup(func() { _, _ = tap.Stop() })
	expect := func(addr string) {
		t.Helper()
		for _, send := range []func(){
			func() { w.syn(w.lan, addr, otherPort) }, func() { w.sendBy(w.lan, "ip4:icmp", addr, string([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1})) },
			func() { w.sendBy(w.lan, "ip4:47", addr, "tunnelled") },
		} {
			_, err := tap.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.IP != nil && p.Dst.Addr().String() == addr },
				func() error { send(); return nil })
			w.must(err)
		}
	}
	expect(hostOnISP1)
	w.reach(w.lan, "203.0.113.1", otherPort, w.listen(w.host, otherPort))
	wanted.Uplinks[0].Insides = []netip.Addr{netip.MustParseAddr(lanAddr)}
	w.must(r.Apply(wanted))
	expect("203.0.113.1")
	w.reach(w.lan, "192.168.7.1", poolPort, w.listen(w.host, poolPort))
}
