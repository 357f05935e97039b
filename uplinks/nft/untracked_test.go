package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

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
			exchanges := []struct {
				from, to *lab.Namespace
				addr     string
				tracked  bool
			}{
				{w.lan, w.sink, internet, !untracked}, {w.lan, w.sink, sinkAddr, !untracked}, {w.sink, w.lan, lanAddr, !untracked},
				{w.host, w.sink, internet, true}, {w.sink, w.host, "198.18.73.1", true}, {w.lan, w.host, "192.168.7.1", true},
				{w.lan, w.isp1, isp1Addr, true}, {w.host, w.isp1, isp1Addr, true}, {w.isp1, w.host, hostOnISP1, true},
				{w.host, w.host, "198.18.73.1", true}, {w.lan, w.host, hostOnISP1, true},
			}
			for i, e := range exchanges {
				w.thereAndBack(e.from, e.to, e.addr, otherPort+i)
			}
			tracked := w.connections()
			for i, e := range exchanges {
				if got := tracked[otherPort+i]; got != e.tracked {
					t.Errorf("from %s to %s: tracked %v, want %v", e.from.Name(), e.addr, got, e.tracked)
				}
			}
		})
	}
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

// connections are the ports to which the host has connections in its table.
func (w *world) connections() map[int]bool {
	w.t.Helper()
	ports := make(map[int]bool)
	w.must(w.host.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
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
