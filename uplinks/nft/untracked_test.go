package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// exchange is a datagram there and one back, and whether the host's kernel tracks them.
type exchange struct {
	from, to *lab.Namespace
	addr     string
	tracked  bool
}

func (w *world) expectTracked(exchanges []exchange) {
	w.t.Helper()
	for i, e := range exchanges {
		w.thereAndBack(e.from, e.to, e.addr, otherPort+i)
	}
	tracked := w.connections(unix.AF_INET)
	for i, e := range exchanges {
		if got := tracked[otherPort+i]; got != e.tracked {
			w.t.Errorf("from %s to %s: tracked %v, want %v", e.from.Name(), e.addr, got, e.tracked)
		}
	}
}

// TestUntracked: with it no connection between the LAN and the TAP is in the kernel's table, and all others still are.
func TestUntracked(t *testing.T) {
	const internet = "192.0.2.80" // behind the TAP, by the default route
	for _, untracked := range []bool{true, false} {
		t.Run(fmt.Sprint(untracked), func(t *testing.T) {
			w := newWorld(t)
			w.addAddress(w.sink, internet)
			w.route(w.host, sinkAddr)
			wanted := w.wanted()
			if untracked {
				port, err := w.host.Index("lan0")
				w.must(err)
				wanted.Untracked = []int{port}
			}
			w.apply(wanted)
			exchanges := []exchange{
				{w.lan, w.sink, internet, !untracked}, {w.lan, w.sink, sinkAddr, !untracked}, {w.sink, w.lan, lanAddr, !untracked},
				{w.host, w.sink, internet, true}, {w.sink, w.host, "198.18.73.1", true}, {w.lan, w.host, "192.168.7.1", true},
				{w.lan, w.isp1, isp1Addr, true}, {w.host, w.isp1, isp1Addr, true}, {w.isp1, w.host, hostOnISP1, true},
				{w.host, w.host, "198.18.73.1", true}, {w.lan, w.host, hostOnISP1, true},
			}
			w.expectTracked(exchanges)
		})
	}
}

// TestUntrackedHost: with it no connection of the host by the TAP is in the kernel's table, and all others still are.
func TestUntrackedHost(t *testing.T) {
	const tap, internet = "198.18.73.1", "192.0.2.80" // behind the TAP, by the default route
	w := newWorld(t)
	w.addAddress(w.sink, internet)
	w.route(w.host, sinkAddr)
	wanted := w.wanted()
	wanted.UntrackedHost, wanted.Address, wanted.Turned = true, netip.MustParseAddr(tap), w.turning().Turned
	wanted.Uplinks[0].Taken = true
	r := w.apply(wanted)
	exchanges := []exchange{
		{w.host, w.sink, internet, false}, {w.sink, w.host, tap, false}, {w.lan, w.sink, internet, true},
		{w.lan, w.host, tap, true}, {w.host, w.isp1, isp1Addr, true}, {w.isp1, w.host, hostOnISP1, true}, {w.host, w.host, tap, true},
	}
	w.expectTracked(exchanges)
	w.deliver(w.isp1, isp1Addr, tap, poolPort+1) // what the kernel has changed already goes on from there
	w.deliver(w.isp2, isp2Addr, tap, poolPort+2)
	if tracked := w.connections(unix.AF_INET); tracked[poolPort+1] || !tracked[poolPort+2] {
		t.Error("what comes in for the host by an uplink is tracked where the kernel carries packets, or is not elsewhere")
	}
	wanted.UntrackedHost = false
	w.must(r.Apply(wanted))
	w.thereAndBack(w.host, w.sink, internet, poolPort)
	if !w.connections(unix.AF_INET)[poolPort] {
		t.Error("not tracked although it is wanted again")
	}
}

// TestTurnedPacketsAreUntracked: those that come from the TAP with an address of an uplink, and no others.
func TestTurnedPacketsAreUntracked(t *testing.T) {
	for name, n := range uplinkCounts {
		t.Run(name, func(t *testing.T) { turnedPacketsAreUntracked(t, n) })
	}
}

func turnedPacketsAreUntracked(t *testing.T, uplinks int) {
	const ofUplink, ofUplinkV6 = "192.0.2.2", "2001:db8:a::2"
	w := newWorldV6(t)
	wanted := crowded(w.wantedV6(), uplinks)
	wanted.Turned = w.turning().Turned
	w.apply(wanted)
	for _, ns := range []*lab.Namespace{w.sink, w.isp1} {
		w.addAddress(ns, ofUplink)
		w.addV6(ns, "eth0", ofUplinkV6)
	}
	for _, device := range []string{"all", "wan0", "tapgw0"} {
		w.must(w.host.Sysctl("net/ipv4/conf/"+device+"/rp_filter", "0"))
	}
	for i, e := range []struct {
		from         *lab.Namespace
		source, addr string
		tracked      bool
	}{
		{w.sink, ofUplink, lanAddr, false}, {w.sink, sinkAddr, lanAddr, true}, {w.isp1, ofUplink, hostOnISP1, true},
		{w.sink, ofUplinkV6, lanAddrV6, false}, {w.sink, sinkAddrV6, lanAddrV6, true}, {w.isp1, ofUplinkV6, hostOnISP1V6, true},
	} {
		port, family := otherPort+i, netlink.InetFamily(unix.AF_INET)
		w.deliver(e.from, e.source, e.addr, port)
		if netip.MustParseAddr(e.addr).Is6() {
			family = unix.AF_INET6
		}
		if got := w.connections(family)[port]; got != e.tracked {
			t.Errorf("from %s in %s: tracked %t, want %t", e.source, e.from.Name(), got, e.tracked)
		}
	}
}

// deliver sends a datagram from an address to whoever has the other, and awaits it there.
func (w *world) deliver(from *lab.Namespace, source, addr string, port int) {
	w.t.Helper()
	to := w.host
	if addr == lanAddr || addr == lanAddrV6 {
		to = w.lan
	}
	server, err := to.ListenPacket("udp", endpoint(addr, port))
	w.must(err)
	defer server.Close()
	w.must(server.SetDeadline(time.Now().Add(patience)))
	c, err := from.DialWith(context.Background(), &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}, "udp", endpoint(addr, port))
	w.must(err)
	defer c.Close()
	_, err = c.Write([]byte("datagram"))
	w.must(err)
	w.receive(server)
}

func (w *world) addAddress(ns *lab.Namespace, addr string) {
	w.t.Helper()
	link, err := ns.Handle().LinkByName("eth0")
	w.must(err)
	w.must(ns.Handle().AddrAdd(link, &netlink.Addr{IPNet: netlink.NewIPNet(net.ParseIP(addr))}))
}

// thereAndBack sends a datagram there and one back.
func (w *world) thereAndBack(from, to *lab.Namespace, addr string, port int) {
	w.t.Helper()
	endpoint, deadline := fmt.Sprintf("%s:%d", addr, port), time.Now().Add(patience)
	server, err := to.ListenPacket("udp4", endpoint)
	w.must(err)
	defer server.Close()
	c, err := from.Dial(context.Background(), "udp4", endpoint)
	w.must(err)
	defer c.Close()
	w.must(errors.Join(server.SetDeadline(deadline), c.SetDeadline(deadline)))
	_, err = c.Write([]byte("there"))
	w.must(err)
	_, client := w.receive(server)
	_, err = server.WriteTo([]byte("back"), net.UDPAddrFromAddrPort(client))
	w.must(err)
	_, err = c.Read(make([]byte, 10))
	w.must(err)
}

// connections are the ports to which the host has connections of a family in its table.
func (w *world) connections(family netlink.InetFamily) map[int]bool {
	w.t.Helper()
	ports := make(map[int]bool)
	w.must(w.host.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		for _, f := range flows {
			ports[int(f.Forward.DstPort)] = true
		}
		return err
	}))
	return ports
}

// TestTaken: the host's stack sees all packets of an uplink where somebody else takes what is ours before it.
func TestTaken(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Uplinks[0].Taken = true
	r := w.apply(wanted)
	if _, err := w.dial(w.isp1, 0, hostOnISP1, poolPort); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port of the pool on the taken uplink: %v, want a reset", err)
	}
	hidden := w.syn(w.isp2, "203.0.113.1", poolPort)
	w.unanswered(hidden, w.isp2, "203.0.113.1")
	w.relayed(lanAddr, w.listenUDP(w.lan, 9), false) // nothing else changes

	wanted.Uplinks[1].Taken = true
	w.must(r.Apply(wanted))
	w.expectTables("1 tapgw", "2 tapgw_fallback")
	if _, err := w.dial(w.isp2, 0, "203.0.113.1", poolPort); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port of the pool when all are taken: %v, want a reset", err)
	}
}
