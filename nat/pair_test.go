package nat

import (
	"errors"
	"testing"

	"tapgw/internal/packet"
)

// mustReservePair reserves a pair for an inside port of UDP, and fails unless it is one.
func mustReservePair(t *testing.T, table *Table, port uint16) [2]Reservation {
	t.Helper()
	p, err := table.ReservePair(protoUDP, host, port, bind1, after(0))
	if err != nil {
		t.Fatalf("reserve from port %d: %v", port, err)
	}
	if p[0].Outside != out1 || p[1].Outside != out1 || p[1].OutsidePort != p[0].OutsidePort+1 {
		t.Fatalf("reserved %+v for port %d", p, port)
	}
	return p
}

// TestReservePair: both endpoints have the mappings they were given, and a pair is the same as long as it is there.
func TestReservePair(t *testing.T) {
	table := newTable(t, nil)
	seen := make(map[uint16]bool)
	for port := uint16(4000); port < 4100; port += 3 {
		p := mustReservePair(t, table, port)
		if p[0].OutsidePort&1 != port&1 || seen[p[0].OutsidePort] || seen[p[1].OutsidePort] {
			t.Errorf("port %d has %+v", port, p)
		}
		seen[p[0].OutsidePort], seen[p[1].OutsidePort] = true, true
		if again := mustReservePair(t, table, port); again != p {
			t.Errorf("port %d has %+v and then %+v", port, p, again)
		}
		for i := range uint16(2) {
			tr := table.Translation(mustOpen(t, table, key(protoUDP, port+i, web, 5004), bind1, after(0)))
			if tr.OutsidePort != p[i].OutsidePort {
				t.Errorf("port %d sends from %d, not %d", port+i, tr.OutsidePort, p[i].OutsidePort)
			}
			for range 2 {
				table.Cancel(p[i], after(0))
			}
			table.End(tr.Key, after(0))
		}
	}
	if n := table.Stats().Mappings; n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}

// TestPairsBesideMappings: an endpoint that is mapped keeps its port, and the other gets the one beside it or none.
func TestPairsBesideMappings(t *testing.T) {
	table := newTable(t, nil)
	low := table.Translation(mustOpen(t, table, key(protoUDP, 4000, web, 5004), bind1, after(0)))
	if p := mustReservePair(t, table, 4000); p[0].OutsidePort != low.OutsidePort {
		t.Errorf("port %d became %d", low.OutsidePort, p[0].OutsidePort)
	}
	high := table.Translation(mustOpen(t, table, key(protoUDP, 4011, web, 5004), bind1, after(0)))
	if p := mustReservePair(t, table, 4010); p[1].OutsidePort != high.OutsidePort {
		t.Errorf("port %d became %d", high.OutsidePort, p[1].OutsidePort)
	}
	for _, port := range []uint16{4020, 4021} { // at two ports that are not neighbours
		mustOpen(t, table, key(protoUDP, port, web, 5004), bind1, after(0))
	}
	before := table.Stats().Mappings
	if p, err := table.ReservePair(protoUDP, host, 4020, bind1, after(0)); !errors.Is(err, ErrNoPort) {
		t.Errorf("reserved %+v, error %v", p, err)
	}
	if n := table.Stats().Mappings; n != before {
		t.Errorf("%d mappings became %d", before, n)
	}
}

// TestPairsRunOut: there are as many as there are neighbours, of which no socket has one; nothing is left of a failure.
func TestPairsRunOut(t *testing.T) {
	table := newTable(t, func(c *Config) {
		c.Ports = []PortRange{{2000, 2003}, {2005, 2005}, {2008, 2009}}
		c.Held = func(_ uint8, _ packet.Addr, port uint16) bool { return port == 2009 }
	})
	for _, port := range []uint16{4000, 4002} {
		mustReservePair(t, table, port)
	}
	for _, port := range []uint16{4004, 65535} {
		if p, err := table.ReservePair(protoUDP, host, port, bind1, after(0)); !errors.Is(err, ErrNoPort) {
			t.Errorf("reserved %+v for port %d, error %v", p, port, err)
		}
	}
	if p, err := table.ReservePair(protoICMP, host, 4004, bind1, after(0)); err == nil {
		t.Errorf("reserved %+v for ICMP", p)
	}
	if n := table.Stats().Mappings; n != 4 {
		t.Errorf("%d mappings", n)
	}
}

// TestPairsAtAnAddressOfItsOwn: where ports are not changed, those of a pair are neither.
func TestPairsAtAnAddressOfItsOwn(t *testing.T) {
	table := newTable(t, nil)
	b := bind1
	b.Exact = true
	for _, port := range []uint16{4000, 4003} {
		p, err := table.ReservePair(protoUDP, host, port, b, after(0))
		if err != nil || p[0].OutsidePort != port || p[1].OutsidePort != port+1 {
			t.Errorf("port %d has %+v, error %v", port, p, err)
		}
	}
}
