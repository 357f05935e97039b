package nft

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TestNoRelay sends what must not be forwarded, then something to the host itself: when that has arrived, the forbidden
// packet has been handled too.
func TestNoRelay(t *testing.T) {
	for name, n := range uplinkCounts {
		t.Run(name, func(t *testing.T) { noRelay(t, n) })
	}
}

func noRelay(t *testing.T, uplinks int) {
	w := newWorld(t)
	r := w.apply(crowded(w.wanted(), uplinks))
	w.relayed(sinkAddr, w.listenUDP(w.sink, 9), false)
	w.relayed(lanAddr, w.listenUDP(w.lan, 9), false)
	w.relayed(isp2Addr, w.listenUDP(w.isp2, 9), false)

	wanted := crowded(w.wanted(), uplinks)
	wanted.Uplinks[0].Guard = false
	w.must(r.Apply(wanted))
	w.relayed(sinkAddr, w.listenUDP(w.sink, 10), false)
	w.relayed(lanAddr, w.listenUDP(w.lan, 10), true)
	w.relayed(isp2Addr, w.listenUDP(w.isp2, 10), true)

	w.must(r.Apply(Wanted{}))
	w.relayed(sinkAddr, w.listenUDP(w.sink, 11), true)
}

// relayed checks whether a datagram from a neighbour on the first uplink reaches server through the host.
func (w *world) relayed(addr string, server net.PacketConn, want bool) {
	w.t.Helper()
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	barrier := w.listenUDP(w.host, otherPort)
	defer barrier.Close()
	w.send(w.isp1, addr, int(port), "relay")
	w.send(w.isp1, hostOnISP1, otherPort, "barrier")
	w.receive(barrier)
	w.send(w.host, addr, int(port), "direct")
	got, from := w.receive(server)
	if (got == "relay") != want {
		w.t.Errorf("to %s: received %q first, want relayed %t", addr, got, want)
	}
	if got == "relay" && from.Addr() != netip.MustParseAddr(isp1Addr) {
		w.t.Errorf("to %s: a stranger's packet was masqueraded as from %v", addr, from)
	}
}

// TestGuardDropsInvalid: an answer to nothing belongs to no connection, for the guard of the daemon and for the one that
// stays when it dies.
func TestGuardDropsInvalid(t *testing.T) {
	w := newWorld(t)
	unguarded := w.wanted()
	unguarded.Uplinks[0].Guard = false
	r := w.apply(unguarded)
	w.unsolicited(w.isp1, w.lan, lanAddr, true)
	w.must(r.Apply(w.wanted()))
	w.unsolicited(w.isp1, w.lan, lanAddr, false)
	w.must(r.socket.close())
	w.unsolicited(w.isp1, w.lan, lanAddr, false)
}

// TestNothingLeavesUntranslated sends from the host's address on the TAP by an uplink, as a socket does that outlives the
// route through the TAP, and then from the uplink's own address.
func TestNothingLeavesUntranslated(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.Address = netip.MustParseAddr("198.18.73.1")
	w.apply(wanted)
	server := w.listenUDP(w.isp1, 9)
	w.must(w.host.Do(func() error {
		for _, source := range []string{"198.18.73.1", hostOnISP1} {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
			c, err := d.Dial("udp", net.JoinHostPort(isp1Addr, "9"))
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte(source)) // the first is refused
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	}))
	if got, _ := w.receive(server); got != hostOnISP1 {
		t.Errorf("the provider received %q first", got)
	}
}

func TestPortForwardOfTheUserWorks(t *testing.T) {
	w := newWorld(t)
	w.portForward(8080)
	w.portForward(otherPort)
	server := w.listen(w.lan, 80)
	wanted := w.wanted()
	r := w.apply(wanted)
	peer := w.reach(w.isp1, hostOnISP1, otherPort, server)
	if peer.Addr() != netip.MustParseAddr(isp1Addr) {
		t.Errorf("the server sees %v, want the client's own address %s", peer, isp1Addr)
	}
	wanted.Ports = []PortRange{{5000, 6000}}
	w.must(r.Apply(wanted))
	w.reach(w.isp1, hostOnISP1, 8080, server)
}

// portForward adds what a user would: nft add rule ip user prerouting iifname wan0 tcp dport PORT dnat to LAN:80.
func (w *world) portForward(from int) {
	w.t.Helper()
	c := w.conn()
	table := c.AddTable(&nftables.Table{Name: "user", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		meta(expr.MetaKeyIIFNAME), equal(ifname("wan0")),
		meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_TCP}),
		payload(expr.PayloadBaseTransportHeader, 2, 2), equal(port(uint16(from))),
		[]expr.Any{
			&expr.Immediate{Register: 1, Data: netip.MustParseAddr(lanAddr).AsSlice()},
			&expr.Immediate{Register: 2, Data: port(80)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
		},
	)})
	w.must(c.Flush())
}

func TestFallbackMasquerades(t *testing.T) {
	w := newWorld(t)
	server := w.listen(w.isp1, 80)
	r := w.apply(w.wanted())
	w.masqueraded(server)
	w.must(r.socket.close())
	w.expectTables("2 tapgw_fallback")
	own := netip.AddrPortFrom(netip.MustParseAddr(hostOnISP1), poolPort)
	if seen := w.reachFrom(w.host, poolPort, isp1Addr, 80, server); seen != own {
		t.Errorf("the host's own connection from %v appears as from %v", own, seen)
	}
	w.masqueraded(server)
	w.relayed(lanAddr, w.listenUDP(w.lan, 9), false)
	w.reach(w.isp1, hostOnISP1, poolPort, w.listen(w.host, poolPort))
}

// masqueraded connects from the LAN to a server on the first uplink: with a port the datapath does not own.
func (w *world) masqueraded(server net.Listener) {
	w.t.Helper()
	want := netip.MustParseAddr(hostOnISP1)
	for range 5 {
		seen := w.reachFrom(w.lan, poolPort, isp1Addr, 80, server)
		if seen.Addr() != want || seen.Port() < 32768 || seen.Port() > 60999 {
			w.t.Errorf("the server sees %v, want %v with a port of 32768–60999", seen, want)
		}
	}
}

func TestFallbackOnlyWithLAN(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	wanted.LAN = false
	w.apply(wanted)
	w.expectTables("5 tapgw", "1 tapgw")
}
