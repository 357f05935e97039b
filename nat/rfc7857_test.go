package nat

import (
	"testing"

	"tapgw/internal/packet"
)

// Endpoints of different protocols have nothing to do with each other, whatever their ports.
func TestRFC7857_S5_ProtocolsAreIndependent(t *testing.T) {
	table := newTable(t, nil)
	udp := table.Translation(mustOpen(t, table, key(protoUDP, 4000, web, 80), bind1, after(0)))
	if _, ok := table.Bound(protoTCP, host, 4000); ok {
		t.Error("a UDP endpoint binds the TCP endpoint of the same port")
	}
	if got := table.Owned(isp1, protoTCP, out1, udp.OutsidePort); got != Free {
		t.Errorf("the TCP port of the same number is %d", got)
	}
	tcp := table.Translation(mustOpen(t, table, key(protoTCP, 4000, web, 80), bind2, after(0)))
	if tcp.Uplink != isp2 {
		t.Errorf("the TCP endpoint is on uplink %d", tcp.Uplink)
	}
	if u, _ := table.Bound(protoUDP, host, 4000); u != isp1 {
		t.Errorf("the UDP endpoint moved to uplink %d", u)
	}
}

// An inside host has the same address of a pool for all protocols.
func TestRFC7857_S4_OneAddressForAllProtocols(t *testing.T) {
	table := newTable(t, nil)
	pool := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out1, plus(out1, 1), plus(out1, 2)}}
	used := make(map[packet.Addr]bool)
	for h := range 20 {
		one := make(map[packet.Addr]bool)
		for _, proto := range []uint8{protoTCP, protoUDP, protoICMP} {
			k := key(proto, 4000, web, 0)
			k.Inside = plus(host, h)
			one[table.Translation(mustOpen(t, table, k, pool, after(0))).Outside] = true
		}
		for a := range one {
			used[a] = true
		}
		if len(one) != 1 {
			t.Errorf("host %d has the addresses %v", h, one)
		}
	}
	if len(used) != len(pool.Addresses) {
		t.Errorf("20 hosts use %d addresses", len(used))
	}
}

// Parity means nothing for TCP, whose ports it would only make easier to guess.
func TestRFC7857_S8_NoParityOfTCP(t *testing.T) {
	table := newTable(t, nil)
	var odd int
	for i := range 200 {
		odd += int(table.Translation(mustOpen(t, table, key(protoTCP, uint16(2*i), web, 80), bind1, after(0))).OutsidePort & 1)
	}
	if odd < 50 || odd > 150 {
		t.Errorf("%d of 200 outside ports are odd", odd)
	}
}
