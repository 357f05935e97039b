package nat

import (
	"encoding/binary"
	"testing"
	"time"

	"tapgw/internal/packet"
)

const gre, esp, sctp, experimental = 47, 50, 132, 253

var neighbour = plus(host, 1) // inside too

// pairKey is a session without ports.
func pairKey(proto uint8, inside, remote packet.Addr) Key {
	return Key{Inside: inside, Remote: remote, Proto: proto}
}

// mustBe opens a session and checks its outside address.
func mustBe(t *testing.T, table *Table, k Key, b Binding, outside packet.Addr) Translation {
	t.Helper()
	tr := table.Translation(mustOpen(t, table, k, b, after(0)))
	if tr.Outside != outside || tr.OutsidePort != 0 || tr.State != Active || tr.Uplink != b.Uplink {
		t.Fatalf("%+v, want outside address %v and no port", tr, outside.Netip())
	}
	return tr
}

// TestOtherProtocols_AddressPair: protocols without ports are told apart by their addresses and number alone, and an outside
// address serves one inside host for each remote.
func TestOtherProtocols_AddressPair(t *testing.T) {
	table := newTable(t, nil)
	for _, proto := range []uint8{gre, esp, sctp, packet.ProtoUDPLite, packet.ProtoDCCP, experimental, 0, 255} {
		tr := mustBe(t, table, pairKey(proto, host, web), bind1, out1)
		if table.FindIn(tr.InKey()) == 0 {
			t.Errorf("protocol %d: no reply finds it", proto)
		}
		mustBe(t, table, pairKey(proto, host, peer), bind1, out1)
		mustFail(t, ErrNoPort, table, pairKey(proto, neighbour, web), bind1, after(0))
		mustBe(t, table, pairKey(proto, neighbour, web), bind2, out2)
		mustBe(t, table, pairKey(proto, neighbour, plus(web, 9)), bind1, out1)
		if whose := table.Owned(isp1, proto, out1, 0); whose != Free {
			t.Errorf("protocol %d: port 0 is %v", proto, whose)
		}
	}
	if n := table.Stats().Refused.NoPort; n != 8 {
		t.Errorf("%d refusals counted", n)
	}
}

// TestOtherProtocols_Pool: where a host's own address is taken for a remote, another of the pool does.
func TestOtherProtocols_Pool(t *testing.T) {
	table := newTable(t, nil)
	pool := bind1
	pool.Addresses = []packet.Addr{out1, plus(out1, 1), plus(out1, 2)}
	used := map[packet.Addr]bool{}
	for i := range 3 {
		tr := table.Translation(mustOpen(t, table, pairKey(gre, plus(host, i), web), pool, after(0)))
		if used[tr.Outside] {
			t.Fatalf("%s is used twice", tr.Outside.Netip())
		}
		used[tr.Outside] = true
		if again := table.Translation(mustOpen(t, table, pairKey(gre, plus(host, i), peer), pool, after(0))); again.Outside != tr.Outside {
			t.Errorf("the host changes its address from %s to %s", tr.Outside.Netip(), again.Outside.Netip())
		}
	}
	mustFail(t, ErrNoPort, table, pairKey(gre, plus(host, 3), web), pool, after(0))
	if n := table.Stats().Mappings; n != 3 {
		t.Errorf("%d mappings", n)
	}
}

// TestOtherProtocols_Ends: the mapping goes with the last session, and the address is free at once.
func TestOtherProtocols_Ends(t *testing.T) {
	table := newTable(t, nil)
	k := pairKey(esp, host, web)
	mustBe(t, table, k, bind1, out1)
	mustBe(t, table, pairKey(esp, host, peer), bind1, out1)
	table.End(k, after(0))
	if u, ok := table.Bound(esp, host, 0); !ok || u != isp1 {
		t.Errorf("the mapping went with the first of two sessions")
	}
	mustBe(t, table, pairKey(esp, neighbour, web), bind1, out1)
	sweepAt(table, DefaultTimeouts.Other+time.Second)
	if s := table.Stats(); s.Sessions != 0 || s.Mappings != 0 {
		t.Errorf("%+v is left", s)
	}
	if _, ok := table.Bound(esp, host, 0); ok {
		t.Error("a mapping without sessions")
	}
}

// TestOtherProtocols_Rebound: a session is moved to another uplink, and bound anew on its own under a new generation.
func TestOtherProtocols_Rebound(t *testing.T) {
	table := newTable(t, nil)
	k := pairKey(gre, host, web)
	mustBe(t, table, k, bind1, out1)
	renewed := bind1
	renewed.Generation++
	tr := mustBe(t, table, k, renewed, out1)
	if r := table.FindIn(tr.InKey()); r == 0 || table.Translation(r).Generation != renewed.Generation {
		t.Errorf("replies find session %d", r)
	}
	mustBe(t, table, k, bind2, out2)
	if table.FindIn(tr.InKey()) != 0 {
		t.Error("replies by the uplink before find a session")
	}
	if s := table.Stats(); s.Sessions != 1 || s.Mappings != 1 {
		t.Errorf("%d sessions, %d mappings", s.Sessions, s.Mappings)
	}
}

// TestMW3_Companion: the oldest session of two hosts tells the uplink of those that belong to it, as long as it lives.
func TestMW3_Companion(t *testing.T) {
	table := newTable(t, nil)
	expect := func(inside, remote packet.Addr, want uint8) {
		t.Helper()
		if u, ok := table.Companion(inside, remote); ok != (want != 0) || ok && u != want {
			t.Errorf("companion on uplink %d, %v; want %d", u, ok, want)
		}
	}
	expect(host, web, 0)
	ike := key(protoUDP, 500, web, 500)
	mustOpen(t, table, ike, bind2, after(0))
	mustOpen(t, table, key(protoTCP, 4000, web, 443), bind1, after(0))
	expect(host, web, isp2)
	expect(host, peer, 0)
	expect(neighbour, web, 0)
	mustOpen(t, table, ike, bind1, after(0)) // moved
	expect(host, web, isp1)
	table.End(ike, after(0))
	expect(host, web, 0)
	mustOpen(t, table, key(protoTCP, 4001, web, 443), bind2, after(0))
	expect(host, web, isp2)
}

// TestMW3_CompanionsOfMany: of more pairs of hosts than there is room for, the first keep theirs, and nobody gets a wrong one.
func TestMW3_CompanionsOfMany(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 1000 })
	for i := range 1000 {
		b := bind1
		if i%2 == 1 {
			b = bind2
		}
		mustOpen(t, table, Key{Inside: host, Remote: plus(web, i), InsidePort: 1, RemotePort: 2, Proto: protoUDP}, b, after(0))
		if i%2 == 0 {
			table.End(Key{Inside: host, Remote: plus(web, i), InsidePort: 1, RemotePort: 2, Proto: protoUDP}, after(0))
		}
	}
	found := 0
	for i := range 1000 {
		u, ok := table.Companion(host, plus(web, i))
		if ok && (i%2 == 0 || u != isp2) {
			t.Fatalf("companion %d on uplink %d", i, u)
		}
		if ok {
			found++
		}
	}
	if found < 300 {
		t.Errorf("only %d of 500 found", found)
	}
}

// TestOtherProtocols_PayloadStays: nothing but the header of IPv4 changes where no checksum covers the addresses.
func TestOtherProtocols_PayloadStays(t *testing.T) {
	for _, proto := range []uint8{gre, esp, sctp, experimental} {
		f := flow{proto: proto, src: host, dst: web, payload: []byte("0123456789abcdef0123456789abcdef")}
		frame, p := f.frame(t)
		tr := &Translation{Key: pairKey(proto, host, web), Outside: out1}
		if p.Kind != packet.Portless || !RewriteOut(frame, p, tr, true) || string(frame[p.L4:]) != string(f.payload) {
			t.Errorf("protocol %d: kind %d, % x", proto, p.Kind, frame)
		}
	}
}

// TestOtherProtocols_LaterFragments carry no checksum, whatever lies where it would be.
func TestOtherProtocols_LaterFragments(t *testing.T) {
	for _, proto := range []uint8{packet.ProtoUDPLite, packet.ProtoDCCP} {
		f := flow{proto: experimental, src: host, dst: web, payload: []byte("no header here")}
		frame, _ := f.frame(t)
		frame[14+9], frame[14+7] = proto, 9
		var p packet.Packet
		p.Decode(frame)
		if !RewriteOut(frame, &p, &Translation{Outside: out1}, false) || string(frame[p.L4:]) != string(f.payload) {
			t.Errorf("protocol %d: % x", proto, frame)
		}
	}
}

// TestICMPOfTheOtherFamily: it has identifiers in its own family alone, and in the other belongs to no session at all.
func TestICMPOfTheOtherFamily(t *testing.T) {
	for _, kind := range []uint8{0, 8, 13, 128, 129} {
		body := []byte{kind, 0, 0, 0, 0, 7, 0, 1, 'x'}
		f4 := flow{proto: protoICMP, src: out1, dst: web, srcPort: 7, icmpType: kind, payload: []byte("x")}.packet(t)
		f4[9], f4[10], f4[11] = protoICMPv6, 0, 0
		binary.BigEndian.PutUint16(f4[10:], ^packet.Fold(packet.Sum(0, f4[:20])))
		f6 := flowV6{proto: protoICMP, src: v6(out1), dst: v6(web), payload: body}.packet(t)
		in4, p4 := report(t, router, out1, 3, f4, nil)
		in6, p6 := reportV6(t, v6(router), v6(out1), packet.ICMPv6Unreachable, 0, f6)
		for _, c := range []struct {
			ether  byte
			ip, in []byte
			p      *packet.Packet
		}{{0x08, f4, in4, p4}, {0x86, f6, in6, p6}} {
			var p packet.Packet
			p.Decode(append([]byte{12: c.ether, 13: c.ether & 0x80 >> 7 * 0xdd}, c.ip...))
			_, out := KeyOf(&p)
			if _, in := InKeyOf(&p, isp1); in || out || p.Kind != packet.OtherProto {
				t.Errorf("protocol %d of kind %d has a key", p.Proto, kind)
			}
			_, in := QuotedKeyIn(c.in, c.p, isp1)
			if _, out := QuotedKeyOut(c.in, c.p); in || out {
				t.Errorf("quoted protocol %d of kind %d has a key", p.Proto, kind)
			}
		}
	}
}
