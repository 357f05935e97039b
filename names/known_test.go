package names

import (
	"testing"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

// check fails unless all lists and maps hold the same entries.
func check(t interface{ Fatalf(string, ...any) }, k *known) {
	count := func(l *list, which int) (n int) {
		for at, before := l.oldest, int32(0); at != 0; before, at = at, k.entries[at].newer[which] {
			if k.entries[at].older[which] != before || k.entries[at].full == "" {
				t.Fatalf("entry %d of list %d: %+v", at, which, k.entries[at])
			}
			n++
		}
		if n != l.length {
			t.Fatalf("list %d has %d entries, not %d", which, n, l.length)
		}
		return n
	}
	all, clients, addrs := count(&k.all, byAll), 0, 0
	for _, l := range k.clients {
		clients += count(l, byClient)
	}
	for _, l := range k.byAddr {
		addrs += count(l, byAddr)
	}
	if all != clients || all != addrs || all != len(k.byPair) {
		t.Fatalf("%d entries, %d of clients, %d of addresses, %d pairs", all, clients, addrs, len(k.byPair))
	}
	free := 0
	for at := k.free; at != 0; at = k.entries[at].newer[byAll] {
		free++
	}
	if all+free != len(k.entries)-1 {
		t.Fatalf("%d entries and %d free ones of %d", all, free, len(k.entries)-1)
	}
}

// TestAsAModel: as long as there is room, the names are those that a simple list gives.
func TestAsAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most, mostOfClient = 12, 5
		k := newKnown(most, mostOfClient)
		type learned struct {
			pair
			name  string
			until uint32
		}
		var model []learned // the newest last
		forget := func(match func(learned) bool) {
			for i, l := range model {
				if match(l) {
					model = append(model[:i:i], model[i+1:]...)
					return
				}
			}
		}
		of := func(c packet.Addr) (n int) {
			for _, l := range model {
				if l.client == c {
					n++
				}
			}
			return n
		}
		now := start
		address := rapid.Custom(func(t *rapid.T) packet.Addr { return packet.IPv4(rapid.Uint32Range(1, 6).Draw(t, "address")) })
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Uint32Range(0, 20).Draw(t, "later")
			p := pair{address.Draw(t, "client"), address.Draw(t, "of")}
			n := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			until := now + rapid.Uint32Range(0, 100).Draw(t, "ttl")
			k.learn(p.client, p.addr, name{full: n}, until)
			forget(func(l learned) bool { return l.pair == p })
			if of(p.client) == mostOfClient {
				forget(func(l learned) bool { return l.client == p.client })
			}
			if len(model) == most {
				forget(func(learned) bool { return true })
			}
			model = append(model, learned{p, n, until})
			check(t, &k)

			p = pair{address.Draw(t, "who"), address.Draw(t, "where")}
			want, last := "", learned{}
			for _, l := range model {
				if l.addr != p.addr {
					continue
				}
				if last = l; l.client == p.client && int32(l.until-now) > 0 {
					want = l.name
				}
			}
			if want == "" && int32(last.until-now) > 0 {
				want = last.name
			}
			if got, ok := k.find(p.client, p.addr, now); got.full != want || ok != (want != "") {
				t.Fatalf("%q, %v, want %q", got.full, ok, want)
			}
		}
	})
}
