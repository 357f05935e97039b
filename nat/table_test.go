package nat

import (
	"errors"
	"testing"
	"time"

	"tapgw/internal/packet"
)

func TestNewRefusesBadConfigurations(t *testing.T) {
	good := Config{MaxSessions: 1, Ports: []PortRange{{1, 2}}, Random: func() uint64 { return 0 }}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no sessions":  func(c *Config) { c.MaxSessions = 0 },
		"too many":     func(c *Config) { c.MaxSessions = MaxRecords + 1 },
		"no random":    func(c *Config) { c.Random = nil },
		"no ports":     func(c *Config) { c.Ports = nil },
		"port 0":       func(c *Config) { c.Ports = []PortRange{{0, 5}} },
		"reversed":     func(c *Config) { c.Ports = []PortRange{{5, 4}} },
		"one bad of 2": func(c *Config) { c.Ports = []PortRange{{1, 2}, {5, 4}} },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOpenAndFind(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoTCP, 4000, web, 443)
	if r := table.FindOut(k); r != 0 {
		t.Fatalf("found %d in an empty table", r)
	}
	r := mustOpen(t, table, k, bind1, after(0))
	tr := table.Translation(r)
	want := Translation{
		Key: k, Outside: out1, OutsidePort: tr.OutsidePort, Uplink: isp1, Generation: 1, State: TCPOpening, Reason: 3,
	}
	if tr != want {
		t.Errorf("translation %+v, want %+v", tr, want)
	}
	if got := table.FindOut(k); got != r {
		t.Errorf("outbound: found %d, want %d", got, r)
	}
	if got := table.FindIn(tr.InKey()); got != r {
		t.Errorf("inbound: found %d, want %d", got, r)
	}
	if again := mustOpen(t, table, k, bind1, after(0)); again != r {
		t.Errorf("opened twice: %d and %d", r, again)
	}
	other := tr.InKey()
	other.Uplink = isp2
	if got := table.FindIn(other); got != 0 {
		t.Error("a reply by another uplink was found")
	}
}

func TestOpenRefusesWhatItCannotTranslate(t *testing.T) {
	table := newTable(t, nil)
	mustFail(t, ErrBinding, table, key(protoUDP, 1, web, 1), Binding{Uplink: isp1}, after(0))
	mustFail(t, ErrBinding, table, key(protoUDP, 1, web, 1), Binding{Uplink: isp1, Generation: MaxGeneration + 1, Addresses: []packet.Addr{out1}}, after(0))
	if s := table.Stats(); s.Refused.Binding != 2 || s.Sessions != 0 {
		t.Errorf("stats %+v", s)
	}
}

// One inside endpoint is one outside endpoint, whatever the destination, also when another host wants the same port.
func TestRFC4787_REQ1_EndpointIndependentMapping(t *testing.T) {
	for _, proto := range []uint8{protoTCP, protoUDP, protoICMP} {
		table := newTable(t, nil)
		a := table.Translation(mustOpen(t, table, key(proto, 4000, web, 80), bind1, after(0)))
		neighbour := key(proto, 4000, web, 80)
		neighbour.Inside = plus(host, 1)
		n := table.Translation(mustOpen(t, table, neighbour, bind1, after(0)))
		b := table.Translation(mustOpen(t, table, key(proto, 4000, peer, 81), bind1, after(0)))
		if a.OutsidePort != b.OutsidePort || a.Outside != b.Outside {
			t.Errorf("protocol %d: %x:%d and %x:%d", proto, a.Outside, a.OutsidePort, b.Outside, b.OutsidePort)
		}
		if n.OutsidePort == a.OutsidePort {
			t.Errorf("protocol %d: two endpoints on port %d", proto, a.OutsidePort)
		}
		if u, ok := table.Bound(proto, host, 4000); !ok || u != isp1 {
			t.Errorf("protocol %d: bound %v to %d", proto, ok, u)
		}
		if _, ok := table.Bound(proto, host, 4001); ok {
			t.Errorf("protocol %d: an unused endpoint is bound", proto)
		}
	}
}

// With a pool, an inside host keeps to one outside address; when its ports run out, it gets another.
func TestRFC4787_REQ2_PairedPooling(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{2000, 2019}} })
	pool := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{out1, plus(out1, 1), plus(out1, 2)}}
	count := make(map[packet.Addr]int)
	for i := range 40 {
		tr := table.Translation(mustOpen(t, table, key(protoUDP, uint16(100+i), web, 53), pool, after(0)))
		count[tr.Outside]++
		if i < 20 && len(count) > 1 {
			t.Fatalf("session %d left the host's address: %v", i, count)
		}
	}
	if len(count) != 2 {
		t.Errorf("addresses used: %v, want two", count)
	}
}

// Two uplinks may have the same outside address: the port spaces are separate.
func TestSameAddressOnTwoUplinks(t *testing.T) {
	table := newTable(t, func(c *Config) { c.Ports = []PortRange{{5000, 5000}} })
	twin := Binding{Uplink: isp2, Generation: 1, Addresses: []packet.Addr{out1}}
	a := table.Translation(mustOpen(t, table, key(protoUDP, 1, web, 53), bind1, after(0)))
	b := table.Translation(mustOpen(t, table, key(protoUDP, 2, web, 53), twin, after(0)))
	if table.Translation(table.FindIn(a.InKey())) != a || table.Translation(table.FindIn(b.InKey())) != b {
		t.Error("replies on the two uplinks are confused")
	}
}

// Binding anew moves the session and the endpoint; the endpoint's other sessions stay until they end or move.
func TestRebind(t *testing.T) {
	table := newTable(t, nil)
	k1, k2 := key(protoUDP, 4000, web, 443), key(protoUDP, 4000, peer, 443)
	old := table.Translation(mustOpen(t, table, k1, bind1, after(0)))
	stays := table.Translation(mustOpen(t, table, k2, bind1, after(0)))
	moved := table.Translation(mustOpen(t, table, k1, bind2, after(0)))
	if moved.Uplink != isp2 || moved.Outside != out2 || table.Translation(table.FindOut(k1)) != moved {
		t.Fatalf("not moved: %+v", moved)
	}
	if table.FindIn(old.InKey()) != 0 || table.FindIn(moved.InKey()) == 0 {
		t.Error("the old inbound key is alive, or the new one is not")
	}
	if table.Translation(table.FindOut(k2)) != stays || table.FindIn(stays.InKey()) == 0 {
		t.Error("the session that was not bound anew moved")
	}
	if u, _ := table.Bound(protoUDP, host, 4000); u != isp2 {
		t.Errorf("the endpoint is bound to %d", u)
	}
	if got := table.Owned(isp1, protoUDP, out1, old.OutsidePort); got != Mapped {
		t.Errorf("the old port is %d while a session uses it", got)
	}
	second := table.Translation(mustOpen(t, table, k2, bind2, after(0)))
	if second.OutsidePort != moved.OutsidePort {
		t.Error("two sessions of one endpoint are on two ports")
	}
	if got := table.Owned(isp1, protoUDP, out1, old.OutsidePort); got != Resting {
		t.Errorf("the old port is %d after its last session", got)
	}
	if s := table.Stats(); s.Sessions != 2 || s.Mappings != 1 || s.ByUplink[isp1] != 0 || s.ByUplink[isp2] != 2 || table.SessionsOn(isp2) != 2 {
		t.Errorf("stats %+v", s)
	}
}

// A new generation of the same uplink binds anew, also on the same address.
func TestRebindAfterNewGeneration(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 4000, web, 443)
	old := table.Translation(mustOpen(t, table, k, bind1, after(0)))
	next := bind1
	next.Generation++
	r := table.Translation(mustOpen(t, table, k, next, after(0)))
	if r.Generation != 2 || r.OutsidePort == old.OutsidePort || table.Stats().Sessions != 1 {
		t.Errorf("from %+v to %+v", old, r)
	}
}

func TestPurgeEndsOnlyOtherGenerations(t *testing.T) {
	table := newTable(t, nil)
	next := Binding{Uplink: isp1, Generation: 2, Addresses: []packet.Addr{plus(out1, 9)}}
	dead := key(protoUDP, 1, web, 53)
	alive, elsewhere := key(protoUDP, 2, web, 53), key(protoUDP, 3, web, 53)
	port := table.Translation(mustOpen(t, table, dead, bind1, after(0))).OutsidePort
	mustOpen(t, table, alive, next, after(0))
	mustOpen(t, table, elsewhere, bind2, after(0))
	table.Purge(isp1, 2, after(0))
	if table.FindOut(dead) != 0 || table.FindOut(alive) == 0 || table.FindOut(elsewhere) == 0 {
		t.Error("purged the wrong sessions")
	}
	if got := table.Owned(isp1, protoUDP, out1, port); got != Free {
		t.Errorf("a port of the address that is gone is %d", got)
	}
	if list := *table.spaces[isp1].Load(); len(list) != 1 || list[0].outside != plus(out1, 9) {
		t.Errorf("%d addresses are kept", len(list))
	}
}

// TestRetainEndsOnlyOtherAddresses, of the same generation too: the others' ports go on to rest, and what is computed needs none.
func TestRetainEndsOnlyOtherAddresses(t *testing.T) {
	table := newTable(t, nil)
	kept := Binding{Uplink: isp1, Generation: 1, Addresses: []packet.Addr{plus(out1, 9)}}
	computed := Binding{Uplink: isp1, Generation: 1, Computed: out1}
	dead, portless := key(protoUDP, 1, web, 53), Key{Inside: host, Remote: web, Proto: 47}
	alive, elsewhere, own, moved := key(protoUDP, 2, web, 53), key(protoUDP, 3, web, 53), key(protoUDP, 4, web, 53), key(protoUDP, 5, web, 53)
	mustOpen(t, table, dead, bind1, after(0))
	mustOpen(t, table, portless, bind1, after(0))
	mustOpen(t, table, alive, kept, after(0))
	mustOpen(t, table, own, computed, after(0))
	port := table.Translation(mustOpen(t, table, moved, kept, after(0))).OutsidePort
	mustOpen(t, table, moved, bind2, after(0))
	mustOpen(t, table, elsewhere, bind2, after(0))
	for range 2 {
		table.Retain(isp1, kept.Addresses, after(0))
	}
	for k, want := range map[Key]bool{dead: false, portless: false, alive: true, elsewhere: true, own: true, moved: true} {
		if got := table.FindOut(k) != 0; got != want {
			t.Errorf("%+v: is there %t", k, got)
		}
	}
	if got := table.Owned(isp1, protoUDP, plus(out1, 9), port); got != Resting {
		t.Errorf("a port that rested is %d", got)
	}
	if list := *table.spaces[isp1].Load(); len(list) != 1 || list[0].outside != plus(out1, 9) {
		t.Errorf("%d addresses are kept", len(list))
	}
}

// A full table refuses and keeps what it has.
func TestRFC6888_REQ11_FullTableNeverEvicts(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 10 })
	for i := range 10 {
		mustOpen(t, table, key(protoUDP, uint16(i), web, 53), bind1, after(0))
	}
	mustFail(t, ErrTableFull, table, key(protoUDP, 10, web, 53), bind1, after(0))
	for i := range 10 {
		if table.FindOut(key(protoUDP, uint16(i), web, 53)) == 0 {
			t.Errorf("session %d was evicted", i)
		}
	}
	if s := table.Stats(); s.Refused.TableFull != 1 || s.Sessions != 10 || s.Peak != 10 || s.Max != 10 || s.Mappings != 10 {
		t.Errorf("stats %+v", s)
	}
	d := drain(table, DefaultTimeouts.UDP+time.Minute)
	mustOpen(t, table, key(protoUDP, 10, web, 53), bind1, after(d))
}

func TestSessionsAndCounters(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 1, web, 53)
	r := mustOpen(t, table, k, bind1, after(0))
	mustOpen(t, table, key(protoUDP, 2, web, 53), bind1, after(0))
	table.CountOut(r, after(time.Second), 100, 1, datagram)
	table.CountIn(r, after(2*time.Second), 3000, 2, datagram)
	table.CountIn(r, after(2*time.Second), 1, 1, datagram)
	var list []Info
	table.Sessions(func(i Info) bool { list = append(list, i); return true })
	want := Info{
		Translation: table.Translation(r), Ref: r, Created: after(0), Seen: after(2 * time.Second),
		BytesOut: 100, BytesIn: 3001, PacketsOut: 1, PacketsIn: 3,
	}
	if len(list) != 2 || list[0] != want {
		t.Errorf("got %+v\nwant %+v first of two", list, want)
	}
	n := 0
	table.Sessions(func(Info) bool { n++; return false })
	if n != 1 {
		t.Errorf("went on after false: %d", n)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoTCP, 4000, web, 443)
	r := mustOpen(t, table, k, bind1, after(0))
	tr := table.Translation(r)
	in := tr.InKey()
	p := segment(16)
	if n := testing.AllocsPerRun(200, func() {
		tr := table.Translation(table.FindOut(k))
		table.CountOut(r, after(time.Second), 60, 1, p)
		table.CountIn(table.FindIn(in), after(time.Second), 60, 1, p)
		_ = table.Owned(isp1, protoTCP, out1, tr.OutsidePort)
		_ = table.FindOut(key(protoTCP, 1, peer, 1))
	}); n != 0 {
		t.Errorf("forwarding: %v allocations", n)
	}
}

// Opening and ending sessions allocates nothing once the address's ports exist.
func TestChurnAllocatesNothing(t *testing.T) {
	table := newTable(t, nil)
	d := time.Duration(0)
	churn := func() {
		for i := range 10 {
			if _, err := table.Open(key(protoUDP, uint16(i), web, 53), bind1, after(d)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := table.Open(key(protoUDP, 0, web, 53), bind1, after(d)); err != nil {
			t.Fatal(err)
		}
		d += 10 * time.Minute
		for range 3 {
			d += 2 * time.Second
			table.Sweep(after(d), 0)
		}
	}
	churn()
	if n := testing.AllocsPerRun(50, churn); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A refusal by an index leaves nothing behind: no mapping, port, record or entry in the other index.
func TestRefusalByAnIndexIsUndone(t *testing.T) {
	for name, shrink := range map[string]func(*Table){
		"inbound": func(t *Table) { t.in = newIndex(1) }, "outbound": func(t *Table) { t.out = newIndex(1) },
	} {
		table := newTable(t, nil)
		shrink(table)
		opened := 0
		for i := range 600 {
			if _, err := table.Open(key(protoUDP, uint16(i), web, 53), bind1, after(0)); err == nil {
				opened++
			} else if !errors.Is(err, ErrTableFull) {
				t.Fatal(err)
			}
		}
		s := table.Stats()
		if slots := region * bucketSlots; opened < slots*9/10 || opened > slots {
			t.Errorf("%s: %d opened", name, opened)
		}
		if s.Sessions != opened || s.Mappings != opened || s.Refused.TableFull != uint64(600-opened) {
			t.Errorf("%s: %d opened, stats %+v", name, opened, s)
		}
		for index, x := range map[string]*index{"in": table.in, "out": table.out, "endpoints": table.endpoints} {
			n := 0
			for i := range x.words {
				if x.words[i].Load() != 0 {
					n++
				}
			}
			if n != opened {
				t.Errorf("%s refuses: %d entries in %s", name, n, index)
			}
		}
		if free := table.findSpace(isp1, protoUDP, out1).free; free != 64512-opened {
			t.Errorf("%s: %d ports free", name, free)
		}
	}
}

func TestKeysOfPackets(t *testing.T) {
	for _, c := range []struct {
		f       flow
		out, in bool
	}{
		{flow{proto: protoTCP, srcPort: 1, dstPort: 2}, true, true},
		{flow{proto: protoUDP, srcPort: 1, dstPort: 2}, true, true},
		{flow{proto: protoICMP, srcPort: 1, icmpType: packet.ICMPEcho}, true, false},
		{flow{proto: protoICMP, srcPort: 1, icmpType: packet.ICMPEchoReply}, false, true},
		{flow{proto: protoICMP, icmpType: packet.ICMPUnreachable}, false, false},
		{flow{proto: 47}, true, true},
		{flow{proto: packet.ProtoIGMP}, false, false},
		{flow{proto: protoICMP, icmpType: 253}, false, false},
	} {
		c.f.src, c.f.dst = host, web
		_, p := c.f.frame(t)
		k, ok := KeyOf(p)
		if want := (Key{Inside: host, Remote: web, InsidePort: c.f.srcPort, RemotePort: c.f.dstPort, Proto: c.f.proto}); ok != c.out || ok && k != want {
			t.Errorf("%+v: key %+v, %v", c.f, k, ok)
		}
		in, ok := InKeyOf(p, isp2)
		want := InKey{Outside: web, Remote: host, OutsidePort: c.f.dstPort, RemotePort: c.f.srcPort, Proto: c.f.proto, Uplink: isp2}
		if c.f.proto == protoICMP {
			want.OutsidePort, want.RemotePort = 1, 0
		}
		if ok != c.in || ok && in != want {
			t.Errorf("%+v: inbound key %+v, %v", c.f, in, ok)
		}
	}
}

// TestManyEndpoints: none loses its mapping where the room for them grows.
func TestManyEndpoints(t *testing.T) {
	const many = 4 * fewEndpoints
	table := newTable(t, func(c *Config) { c.MaxSessions = 2 * many })
	of := func(i, remote int) Translation {
		k := key(protoUDP, uint16(1+i), plus(web, remote), 53)
		return table.Translation(mustOpen(t, table, k, bind1, after(0)))
	}
	first := make([]uint16, many)
	for i := range first {
		first[i] = of(i, 0).OutsidePort
	}
	if room := len(table.endpoints.words); room < many || room > 4*many {
		t.Errorf("room for %d endpoints of %d", room, many)
	}
	for i, port := range first {
		if again := of(i, 1).OutsidePort; again != port {
			t.Fatalf("endpoint %d has port %d for its second session, want %d", i, again, port)
		}
	}
}
