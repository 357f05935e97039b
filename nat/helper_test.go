package nat

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"tapgw/internal/packet"
)

const isp1, isp2 = 1, 2

var (
	out1, out2 = packet.IPv4(0xc6336401), packet.IPv4(0xcb007101) // outside addresses of the two
	host       = packet.IPv4(0x0a000002)                          // inside
	web, peer  = packet.IPv4(0xc0000250), packet.IPv4(0xc0000251) // remotes

	bind1 = Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out1}, Reason: 3}
	bind2 = Binding{Uplink: isp2, Generation: 1, Addresses: []packet.Addr{out2}}
)

// newTable makes a table with a repeatable random source.
func newTable(t testing.TB, change func(*Config)) *Table {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	c := Config{
		MaxSessions: 1000, Ports: []PortRange{{1024, 65535}}, ShareTCP: true, Timeouts: DefaultTimeouts,
		Seed: [2]uint64{1, 2}, Random: random.Uint64,
	}
	if change != nil {
		change(&c)
	}
	if c.Memory == nil {
		c.Memory = memoryFor(c.MaxSessions)
	}
	table, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// after is the tick at d after the start of a test. The start is close to the wrap of the tick.
func after(d time.Duration) Tick { return Tick(1<<32-1000) + TickOf(d) }

func mustOpen(t testing.TB, table *Table, k Key, b Binding, now Tick) Ref {
	t.Helper()
	r, err := table.Open(k, b, now)
	if err != nil {
		t.Fatalf("open %+v: %v", k, err)
	}
	return r
}

func mustFail(t testing.TB, want error, table *Table, k Key, b Binding, now Tick) {
	t.Helper()
	if r, err := table.Open(k, b, now); !errors.Is(err, want) {
		t.Fatalf("open %+v: session %d, error %v, want %v", k, r, err, want)
	}
}

func key(proto uint8, port uint16, remote packet.Addr, remotePort uint16) Key {
	return Key{Inside: host, InsidePort: port, Remote: remote, RemotePort: remotePort, Proto: proto}
}

// segment is a TCP segment with flags.
func segment(flags uint8) *packet.Packet {
	return &packet.Packet{Kind: packet.TCP, Proto: protoTCP, TCPFlags: flags}
}

var datagram = &packet.Packet{Kind: packet.UDP, Proto: protoUDP}

// sweepAt sweeps the whole table.
func sweepAt(table *Table, d time.Duration) { table.Sweep(after(d), 0) }

// drain sweeps until the quarantine of all that ended by d is over, and returns the time then.
func drain(table *Table, d time.Duration) time.Duration {
	for range quarantineSweeps + 1 {
		sweepAt(table, d)
		d += quarantineTime + time.Second
	}
	return d
}

// plus is the address n after a.
func plus(a packet.Addr, n int) packet.Addr {
	a.Lo += uint64(n)
	return a
}
