package nat

import (
	"math"
	"testing"
	"time"

	"tapgw/internal/packet"
)

func TestPortListIsSortedAndWithoutDoubles(t *testing.T) {
	got := portList([]PortRange{{10, 12}, {65535, 65535}, {11, 13}})
	want := []uint16{10, 11, 12, 13, 65535}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// UDP never shares a port; the whole pool can be used, then the next endpoint is refused.
func TestRFC4787_REQ3_NoOverloading(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{3000, 3199}} })
	used := make(map[uint16]bool)
	for i := range 200 {
		tr := table.Translation(mustOpen(t, table, key(protoUDP, uint16(i), web, uint16(i)), bind1, after(0)))
		if used[tr.OutsidePort] || tr.OutsidePort < 3000 || tr.OutsidePort > 3199 {
			t.Fatalf("port %d is used twice or outside the pool", tr.OutsidePort)
		}
		used[tr.OutsidePort] = true
	}
	mustFail(t, ErrNoPort, table, key(protoUDP, 999, peer, 999), bind1, after(0))
	if s := table.Stats(); s.Refused.NoPort != 1 || s.Mappings != 200 {
		t.Errorf("stats %+v", s)
	}
	if taken, all := table.PortsOf(bind1.Uplink, protoUDP); taken != 200 || all != 200 {
		t.Errorf("%d of %d ports are taken", taken, all)
	}
	if _, ok := table.Bound(protoUDP, host, 999); ok {
		t.Error("the refused endpoint is bound")
	}
	mustOpen(t, table, key(protoUDP, 5, peer, 999), bind1, after(0)) // a bound endpoint needs no new port
	mustOpen(t, table, key(protoTCP, 999, peer, 999), bind1, after(0))
	mustOpen(t, table, key(protoUDP, 999, peer, 999), bind2, after(0))
}

// Ports are spread evenly (chi-square) and one does not tell the next (serial correlation).
func TestRFC6056_PortsAreUnpredictable(t *testing.T) {
	const n, cells = 2000, 20
	table := newTable(t, func(c *Config) { c.MaxSessions = n; c.Ports = []PortRange{{10000, 49999}} })
	var count [cells]float64
	ports := make([]float64, n)
	for i := range n {
		p := table.Translation(mustOpen(t, table, key(protoUDP, uint16(i), web, 53), bind1, after(0))).OutsidePort
		count[(int(p)-10000)*cells/40000]++
		ports[i] = (float64(p) - 29999.5) / 40000
	}
	var chi, serial, power float64
	for _, c := range count {
		chi += (c - n/cells) * (c - n/cells) / (n / cells)
	}
	for i := range n - 1 {
		serial += ports[i] * ports[i+1]
		power += ports[i] * ports[i]
	}
	if chi > 43.8 { // 19 degrees of freedom, one in a thousand
		t.Errorf("chi-square %.1f", chi)
	}
	if r := serial / power; math.Abs(r) > 0.1 {
		t.Errorf("serial correlation %.2f", r)
	}
}

// The outside port of UDP is odd when the inside port is, also while the pool is well used, and another is better than none.
func TestRFC4787_REQ4_Parity(t *testing.T) {
	const ports = 1000
	table := newTable(t, func(c *Config) { c.MaxSessions = 2 * ports; c.Ports = []PortRange{{3000, 3000 + ports - 1}} })
	open := func(i int, parity uint16) (Translation, error) {
		r, err := table.Open(Key{Inside: plus(host, i), InsidePort: 40000 + parity, Remote: web, RemotePort: 53, Proto: protoUDP}, bind1, after(0))
		return table.Translation(r), err
	}
	for i := range ports * 9 / 10 {
		if tr, err := open(i, uint16(i&1)); err != nil || (tr.OutsidePort^tr.InsidePort)&1 != 0 {
			t.Fatalf("port %d for %d, the %dth: %v", tr.OutsidePort, tr.InsidePort, i, err)
		}
	}
	for i := range ports / 10 { // half of them of the other parity
		if _, err := open(ports+i, 0); err != nil {
			t.Fatalf("%d ports are left, and none is found: %v", ports/10-i, err)
		}
	}
}

// At least 99 % of the pool can be used, and every part of it is.
func TestRFC6888_REQ13_PortsAreUsedWell(t *testing.T) {
	const first, last = 1024, 65535
	table := newTable(t, func(c *Config) { c.MaxSessions = 1 << 16 })
	used := make(map[uint16]bool)
	for i := range last - first + 1 {
		r, err := table.Open(Key{Inside: plus(host, i), InsidePort: uint16(i * 7), Remote: web, RemotePort: 53, Proto: protoUDP}, bind1, after(0))
		if err != nil {
			break
		}
		used[table.Translation(r).OutsidePort] = true
	}
	if all := last - first + 1; len(used) < all*99/100 {
		t.Errorf("%d of %d ports are used", len(used), all)
	}
}

// At least 99 % of the pool can be used also while local sockets hold a thousand ports of it.
func TestHeldPortsArePassedOver(t *testing.T) {
	table := newTable(t, func(c *Config) {
		c.MaxSessions = 40000
		c.Ports = []PortRange{{10000, 45999}}
		c.Held = func(_ uint8, addr packet.Addr, port uint16) bool { return addr == out1 && port%36 == 0 }
	})
	opened := 0
	for i := range 36000 {
		r, err := table.Open(Key{Inside: plus(host, i), InsidePort: 1, Remote: web, RemotePort: 53, Proto: protoUDP}, bind1, after(0))
		if err != nil {
			break
		}
		if p := table.Translation(r).OutsidePort; p%36 == 0 {
			t.Fatalf("port %d is held", p)
		}
		opened++
	}
	if opened < 35000*99/100 {
		t.Errorf("%d of 35,000 ports used", opened)
	}
	if table.Stats().Held == 0 {
		t.Error("held ports are not counted")
	}
}

// A UDP port rests 120 s after its mapping, and is ours meanwhile.
func TestRFC6888_REQ8_PortsRest(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{3000, 3000}} })
	mustOpen(t, table, key(protoUDP, 1, web, 53), bind1, after(0))
	if got := table.Owned(isp1, protoUDP, out1, 3000); got != Mapped {
		t.Fatalf("ownership %d while mapped", got)
	}
	ended := DefaultTimeouts.UDP + time.Second
	sweepAt(table, ended)
	if got := table.Owned(isp1, protoUDP, out1, 3000); got != Resting {
		t.Fatalf("ownership %d after the mapping", got)
	}
	mustFail(t, ErrNoPort, table, key(protoUDP, 2, web, 53), bind1, after(ended+restTime-time.Second))
	if got := table.Owned(isp1, protoTCP, out1, 3000); got != Free {
		t.Errorf("ownership %d of the TCP port of the same number", got)
	}
	mustOpen(t, table, key(protoUDP, 2, web, 53), bind1, after(ended+restTime+time.Second))
}

func TestSweepFreesRestedPorts(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{3000, 3000}} })
	mustOpen(t, table, key(protoUDP, 1, web, 53), bind1, after(0))
	ended := DefaultTimeouts.UDP + time.Second
	sweepAt(table, ended)
	sweepAt(table, ended+restTime+time.Second)
	if got := table.Owned(isp1, protoUDP, out1, 3000); got != Free {
		t.Errorf("ownership %d after the rest", got)
	}
}

// ICMP identifiers come from all 65,536 values and need no rest.
func TestRFC5508_REQ1_IdentifiersUseAllValues(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 70000; c.Ports = []PortRange{{3000, 3000}} })
	open := func(i int) error {
		_, err := table.Open(Key{Inside: plus(host, i>>8), InsidePort: uint16(i & 0xff), Remote: web, Proto: protoICMP}, bind1, after(0))
		return err
	}
	for i := range 1 << 16 {
		if err := open(i); err != nil {
			t.Fatalf("identifier %d: %v", i, err)
		}
	}
	if err := open(1 << 16); err == nil {
		t.Fatal("65,537 identifiers")
	}
	sweepAt(table, DefaultTimeouts.ICMP+time.Second)
	if got := table.Owned(isp1, protoICMP, out1, 0); got != Free {
		t.Errorf("ownership %d of an identifier after its end", got)
	}
}

// closeTCP carries a session through a whole connection.
func closeTCP(table *Table, r Ref, now Tick) {
	for _, f := range []uint8{2, 16, 17} {
		table.CountOut(r, now, 40, 1, segment(f))
	}
	for _, f := range []uint8{18, 17} {
		table.CountIn(r, now, 40, 1, segment(f))
	}
}

// A TCP port rests after its session, as the remote may still be in TIME-WAIT; one closed by both sides does so only while
// half of the ports are free.
func TestTCPPortsRest(t *testing.T) {
	for _, c := range []struct {
		name   string
		closed bool
		last   uint16 // of the pool
		want   Ownership
	}{
		{"timed out", false, 3000, Resting},
		{"closed while ports are short", true, 3000, Free},
		{"closed while ports are many", true, 3009, Resting},
	} {
		table := newTable(t, func(cfg *Config) { cfg.Ports = []PortRange{{3000, c.last}} })
		r := mustOpen(t, table, key(protoTCP, 1, web, 80), bind1, after(0))
		end := DefaultTimeouts.TCPTransitory
		if c.closed {
			closeTCP(table, r, after(0))
			end = DefaultTimeouts.TCPClosed
		}
		sweepAt(table, end+time.Second)
		if got := table.Owned(isp1, protoTCP, out1, table.Translation(r).OutsidePort); got != c.want {
			t.Errorf("%s: ownership %d, want %d", c.name, got, c.want)
		}
	}
}

// Three quarters used: TCP ports are shared by sessions to different remotes, never by two to the same.
func TestTCPSharesPortsWhenTheyRunShort(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{3000, 3099}} })
	open := func(n int, remote packet.Addr) (Translation, error) {
		r, err := table.Open(Key{Inside: plus(host, n), InsidePort: 9, Remote: remote, RemotePort: 443, Proto: protoTCP}, bind1, after(0))
		return table.Translation(r), err
	}
	tuples := make(map[InKey]bool)
	for n := range 500 {
		tr, err := open(n, plus(web, n%10))
		if err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
		if tuples[tr.InKey()] {
			t.Fatalf("tuple %+v given twice", tr.InKey())
		}
		tuples[tr.InKey()] = true
		if shared := table.Stats().Shared; n < 75 && shared != 0 {
			t.Fatalf("shared a port with %d of 100 used", n)
		}
	}
	if table.Stats().Shared == 0 {
		t.Error("sharing is not counted")
	}
	// An endpoint whose port is taken for a remote by another gets a second mapping for it.
	for n := range 500 {
		if tr, err := open(n, plus(web, (n+1)%10)); err == nil {
			if tuples[tr.InKey()] {
				t.Fatalf("tuple %+v given twice", tr.InKey())
			}
			tuples[tr.InKey()] = true
		}
	}
	if got := len(tuples); got != table.Stats().Sessions {
		t.Errorf("%d tuples for %d sessions", got, table.Stats().Sessions)
	}
	for port := 3000; port < 3100; port++ {
		if got := table.Owned(isp1, protoTCP, out1, uint16(port)); got == Resting {
			t.Errorf("port %d rests", port)
		}
	}
	d := drain(table, time.Hour)
	if s := table.Stats(); s.Sessions != 0 || s.Mappings != 0 || s.Quarantined != 0 {
		t.Errorf("stats at the end %+v", s)
	}
	sweepAt(table, d+restTime+time.Minute)
	if s := table.findSpace(isp1, protoTCP, out1); s.free != 100 || s.rest != 0 || s.mappings != 0 {
		t.Errorf("%d of 100 ports free, %d resting, %d mappings", s.free, s.rest, s.mappings)
	}
}

func TestSharingCanBeSwitchedOff(t *testing.T) {
	table := newTable(t, func(c *Config) { c.ShareTCP = false; c.Ports = []PortRange{{3000, 3009}} })
	for n := range 10 {
		mustOpen(t, table, key(protoTCP, uint16(n), plus(web, n), 443), bind1, after(0))
	}
	mustFail(t, ErrNoPort, table, key(protoTCP, 10, plus(peer, 99), 443), bind1, after(0))
}
