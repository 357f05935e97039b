package nat

import (
	"testing"
	"time"

	"tapgw/internal/packet"
)

// An inside host with an address of its own keeps its ports, of every protocol; those also of the pool are free for nobody else
// meanwhile, need no rest, and may be taken again after the endpoint was elsewhere.
func TestExactPortsAreKept(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{3000, 3009}} })
	own := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out2}, Exact: true}
	for _, port := range []uint16{53, 3000, 3001, 65535} {
		for _, proto := range []uint8{protoICMP, protoTCP, protoUDP} {
			tr := table.Translation(mustOpen(t, table, key(proto, port, web, 53), own, after(0)))
			if tr.Outside != out2 || tr.OutsidePort != port {
				t.Errorf("protocol %d, port %d became %v %d", proto, port, tr.Outside, tr.OutsidePort)
			}
		}
	}
	mustOpen(t, table, key(protoUDP, 3000, peer, 53), bind2, after(0)) // the endpoint moves
	tr := table.Translation(mustOpen(t, table, key(protoUDP, 3000, plus(peer, 1), 53), own, after(0)))
	if tr.OutsidePort != 3000 {
		t.Errorf("back again with port %d", tr.OutsidePort)
	}
	pooled := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out2}}
	for i := range 8 { // as if the address were one of the pool again
		k := key(protoUDP, uint16(i), web, 53)
		k.Inside = plus(host, 1)
		if port := table.Translation(mustOpen(t, table, k, pooled, after(0))).OutsidePort; port == 3000 || port == 3001 {
			t.Errorf("port %d is another's", port)
		}
	}
	mustFail(t, ErrNoPort, table, Key{Inside: plus(host, 1), InsidePort: 9, Remote: web, RemotePort: 53, Proto: protoUDP}, pooled, after(0))
	d := drain(table, time.Hour)
	if got := table.Owned(isp1, protoUDP, out2, 53); got != Free {
		t.Errorf("ownership %d after the end", got)
	}
	sweepAt(table, d+restTime+time.Minute)
	if s := table.findSpace(isp1, protoUDP, out2); s.free != 10 || s.mappings != 0 {
		t.Errorf("%d of 10 ports free, %d mappings", s.free, s.mappings)
	}
}

// A remote that speaks to a host's own address does not move the host's endpoint, which goes on where it was.
func TestInwardSessionsMoveNoEndpoint(t *testing.T) {
	table := newTable(t, nil)
	mustOpen(t, table, key(protoUDP, 5060, web, 5060), bind2, after(0))
	inward := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out1}, Exact: true, Inward: true}
	mustOpen(t, table, key(protoUDP, 5060, peer, 5060), inward, after(0))
	mustOpen(t, table, key(protoUDP, 5060, plus(peer, 1), 5060), inward, after(0))
	if u, ok := table.Bound(protoUDP, host, 5060); !ok || u != isp2 {
		t.Errorf("bound to %d", u)
	}
	mustOpen(t, table, key(protoUDP, 5061, peer, 5060), inward, after(0))
	if u, ok := table.Bound(protoUDP, host, 5061); !ok || u != isp1 {
		t.Errorf("a new endpoint is bound to %d", u)
	}
	drain(table, time.Hour)
	if s := table.Stats(); s.Mappings != 0 || s.Hosts != 0 {
		t.Errorf("%d mappings, %d hosts at the end", s.Mappings, s.Hosts)
	}
}

// TestComputedAddressesNeedNoPorts: hosts with a computed address keep their ports, and no array is made for any of them, of which
// there may be more than memory; endpoints come and go, also those that remotes spoke to first or helpers announce.
func TestComputedAddressesNeedNoPorts(t *testing.T) {
	table := newTable(t, func(c *Config) { c.IPv6 = true })
	own := Binding{Uplink: isp1, Generation: 1, Computed: v6(out2)}
	inward := own
	inward.Inward = true
	for _, proto := range []uint8{protoICMP, protoTCP, protoUDP, 47} {
		k := widen(key(proto, 53, web, 53))
		if proto == 47 {
			k.InsidePort, k.RemotePort = 0, 0
		}
		first := mustOpen(t, table, k, own, after(0))
		if tr := table.Translation(first); tr.Outside != v6(out2) || tr.OutsidePort != k.InsidePort || table.FindIn(tr.InKey()) != first {
			t.Errorf("protocol %d became %+v", proto, tr)
		}
		if again := mustOpen(t, table, k, own, after(0)); again != first {
			t.Errorf("protocol %d: two sessions", proto)
		}
	}
	mustOpen(t, table, widen(key(protoUDP, 53, peer, 53)), widenBinding(bind2), after(0)) // the endpoint moves
	mustOpen(t, table, widen(key(protoUDP, 53, plus(peer, 1), 53)), inward, after(0))
	if u, _ := table.Bound(protoUDP, v6(host), 53); u != isp2 {
		t.Errorf("bound to %d", u)
	}
	r, err := table.Reserve(protoTCP, v6(host), 5000, own, after(0))
	if err != nil || r.OutsidePort != 5000 {
		t.Errorf("reserved %+v, %v", r, err)
	}
	table.Cancel(r, after(0))
	for _, proto := range []uint8{protoICMPv6, protoTCP, protoUDP, 47} {
		if table.findSpace(isp1, proto, v6(out2)) != nil {
			t.Errorf("protocol %d has an array of ports", proto)
		}
	}
	drain(table, time.Hour)
	if s := table.Stats(); s.Mappings != 0 || s.Hosts != 0 {
		t.Errorf("%d mappings, %d hosts at the end", s.Mappings, s.Hosts)
	}
}

// TestComputedAddressesOfTheUnknown: whoever speaks to addresses at random fills a share of the table, and an endpoint's share.
func TestComputedAddressesOfTheUnknown(t *testing.T) {
	table := newTable(t, func(c *Config) { c.IPv6, c.MaxSessions = true, 64 })
	b := Binding{Uplink: isp1, Generation: 1, Inward: true}
	opened := func(n int, change func(k *Key, i uint32)) (count int) {
		for i := range uint32(n) {
			k := widen(key(protoUDP, 53, web, 53))
			change(&k, i)
			b.Computed = packet.Addr{Hi: v6(out2).Hi, Lo: k.Inside.Lo}
			if _, err := table.Open(k, b, after(0)); err == nil {
				count++
			}
		}
		return count
	}
	if n := opened(20, func(k *Key, i uint32) { k.RemotePort = uint16(i) }); n != table.maxOfferedTo() {
		t.Errorf("%d sessions offered to one endpoint", n)
	}
	if n := opened(100, func(k *Key, i uint32) { k.Inside.Lo += uint64(i) + 1 }); n != table.maxOffered()-table.maxOfferedTo() {
		t.Errorf("%d sessions offered to others", n)
	}
}
