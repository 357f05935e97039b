package nat

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

// The arrays are shared with a kernel program: sizes and offsets are a contract.
func TestLayout(t *testing.T) {
	var id identity
	var c counters
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"identity", unsafe.Sizeof(id), identityBytes},
		{"identity.ports", unsafe.Offsetof(id.ports), 8},
		{"identity.outside", unsafe.Offsetof(id.outside), 16},
		{"identity.own", unsafe.Offsetof(id.own), 24},
		{"counters", unsafe.Sizeof(c), countersBytes},
		{"counters.seen", unsafe.Offsetof(c.seen), 8},
		{"counters.packets", unsafe.Offsetof(c.packets), 12},
		{"counters.seqEnd", unsafe.Offsetof(c.seqEnd), 16},
		{"counters.ack", unsafe.Offsetof(c.ack), 20},
		{"record", recordBytes, 80},
		{"addresses of IPv6", unsafe.Sizeof(addresses{}), wideBytes},
		{"bucket", bucketSlots * unsafe.Sizeof(newIndex(1).words[0]), 64},
		{"mapping", unsafe.Sizeof(mapping{}), 56},
	} {
		if f.got != f.want {
			t.Errorf("%s is %d, want %d", f.name, f.got, f.want)
		}
	}
}

// Records survive their packing, and the words of both keys are the record's words behind the masks.
func TestRecordWords(t *testing.T) {
	for name, draw := range map[string]func(*rapid.T, string) packet.Addr{
		"IPv4": func(t *rapid.T, what string) packet.Addr { return packet.IPv4(rapid.Uint32().Draw(t, what)) },
		"IPv6": func(t *rapid.T, what string) packet.Addr {
			return packet.Addr{Hi: rapid.Uint64().Draw(t, what), Lo: rapid.Uint64().Draw(t, what)}
		},
	} {
		table := newTable(t, func(c *Config) { c.IPv6 = name == "IPv6" })
		t.Run(name, func(t *testing.T) { checkRecordWords(t, table, draw) })
	}
}

func checkRecordWords(t *testing.T, table *Table, addr func(*rapid.T, string) packet.Addr) {
	rapid.Check(t, func(t *rapid.T) {
		u16, u32 := rapid.Uint16(), rapid.Uint32()
		want := Translation{
			Key: Key{Inside: addr(t, "inside"), Remote: addr(t, "remote"), InsidePort: u16.Draw(t, "in port"),
				RemotePort: u16.Draw(t, "remote port"), Proto: rapid.Uint8().Draw(t, "proto")},
			Outside: addr(t, "outside"), OutsidePort: u16.Draw(t, "out port"), Uplink: rapid.Uint8().Draw(t, "uplink"),
			Generation: u32.Draw(t, "generation") & MaxGeneration, Hop: rapid.Uint8().Draw(t, "hop"), State: State(rapid.IntRange(0, 15).Draw(t, "state")),
			Reason: rapid.Uint8Max(ownReasonMask).Draw(t, "reason"), Helped: rapid.Bool().Draw(t, "helped"), Turned: rapid.Bool().Draw(t, "turned"),
		}
		link, tick := u32.Draw(t, "link")&ownLinkMask, Tick(u32.Draw(t, "tick"))
		const n = 7
		id := &table.records[n]
		table.fill(n, &want)
		id.own.Store(packOwn(want.State, want.Reason, link, tick))
		if want.Helped {
			id.own.Or(ownHelped)
		}
		if want.Turned {
			id.own.Or(ownTurned)
		}
		if got := table.translation(n); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if got := ownLink(id.own.Load()); got != link {
			t.Fatalf("link %d, want %d", got, link)
		}
		if got := ownSince(id.own.Load(), tick+77); got != 77 {
			t.Fatalf("77 ticks later: %d", got)
		}
		out, in := want.words(), want.InKey().words()
		if !table.matchesOut(n, &out) || !table.matchesIn(n, &in) {
			t.Fatal("a record does not match its own keys")
		}
		for _, w := range []*words{&out, &in} {
			w.far.Lo ^= 1
			if table.matchesOut(n, w) || table.matchesIn(n, w) {
				t.Fatal("a record matches another remote")
			}
		}
	})
}

// referenceSIP is SipHash-c-d as its paper writes it, over bytes.
func referenceSIP(c, d int, key, msg []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])
	v := [4]uint64{k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573}
	rounds := func(n int) {
		for range n {
			v[0] += v[1]
			v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
			v[0] = bits.RotateLeft64(v[0], 32)
			v[2] += v[3]
			v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
			v[0] += v[3]
			v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
			v[2] += v[1]
			v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
			v[2] = bits.RotateLeft64(v[2], 32)
		}
	}
	padded := append(append([]byte{}, msg...), make([]byte, 8-len(msg)%8)...)
	padded[len(padded)-1] = byte(len(msg))
	for i := 0; i < len(padded); i += 8 {
		m := binary.LittleEndian.Uint64(padded[i:])
		v[3] ^= m
		rounds(c)
		v[0] ^= m
	}
	v[2] ^= 0xff
	rounds(d)
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

func TestSipHash(t *testing.T) {
	key := make([]byte, 16)
	msg := make([]byte, 15)
	for i := range key {
		key[i] = byte(i)
	}
	copy(msg, key)
	if got := referenceSIP(2, 4, key, msg); got != 0xa129ca6149be45e5 { // the vector of the SipHash paper, appendix A
		t.Fatalf("the reference itself is wrong: %#x", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "key")
		msg := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "message")
		word := binary.LittleEndian.Uint64
		got := siphash([2]uint64{word(key), word(key[8:])}, word(msg), word(msg[8:]))
		if want := referenceSIP(1, 3, key, msg); got != want {
			t.Fatalf("got %#x, want %#x", got, want)
		}
	})
}

// Two candidate buckets hold a full table: at the load the size is chosen for, no insert fails.
func TestIndexHoldsAllRecords(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 7, 1000, 20000} {
		x := newIndex(n)
		hashes := make([]uint64, n+1)
		hash := func(n uint32) uint64 { return hashes[n] }
		for i := 1; i <= n; i++ {
			hashes[i] = random.Uint64()
			if !x.insert(hashes[i], uint32(i), hash) {
				t.Fatalf("no room for %d of %d", i, n)
			}
		}
		for range n { // and stays so while sessions come and go
			i := 1 + random.IntN(n)
			x.remove(hashes[i], uint32(i))
			hashes[i] = random.Uint64()
			if !x.insert(hashes[i], uint32(i), hash) {
				t.Fatalf("no room for %d of %d again", i, n)
			}
		}
		for i := 1; i <= n; i++ {
			if _, ok := x.slotOf(hashes[i], uint32(i)); !ok {
				t.Fatalf("%d of %d is lost", i, n)
			}
			x.remove(hashes[i], uint32(i))
		}
		for i := range x.words {
			if w := x.words[i].Load(); w != 0 {
				t.Fatalf("slot %d still holds %#x", i, w)
			}
		}
	}
}

// Neighbouring ports of a host lie in one region of the index and each in another bucket; hosts that choose their ports so
// that they would all lie in the same bucket of a region still fill the table.
func TestNeighbouringPorts(t *testing.T) {
	table := newTable(t, nil)
	for _, words := range []func(port uint16) words{
		func(port uint16) words { return key(protoUDP, port, web, 53).words() },
		func(port uint16) words { return InKey{out1, web, port, 53, protoUDP, 1}.words() },
	} {
		first, seen := 0, make(map[int]bool)
		for port := range uint16(region) {
			a, _ := table.out.candidates(table.hash(words(6400 + port)))
			if port == 0 {
				first = a / (region * bucketSlots)
			}
			if seen[a] || a/(region*bucketSlots) != first {
				t.Errorf("port %d has bucket %d of region %d", port, a, first)
			}
			seen[a] = true
		}
	}
	for i := range table.cfg.MaxSessions {
		k := key(protoUDP, uint16(i%100)*region, web, uint16(i))
		if _, err := table.Open(k, bind1, after(0)); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
}

func TestIndexRefusesWhenBothBucketsAreFull(t *testing.T) {
	x := newIndex(1000)
	same := func(uint32) uint64 { return 42 }
	for i := range 2 * bucketSlots {
		if !x.insert(42, uint32(i+1), same) {
			t.Fatalf("entry %d refused", i)
		}
	}
	if x.insert(42, 99, same) {
		t.Fatal("both buckets are full, but the entry was taken")
	}
}
