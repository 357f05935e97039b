package names

import (
	"slices"
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

// model does what known does, by a list that it searches.
type model struct {
	most, mostOfClient int
	all                []learned // the newest last
}

type learned struct {
	pair
	name  string
	until uint32
}

// forget drops the oldest that matches.
func (m *model) forget(match func(learned) bool) {
	if i := slices.IndexFunc(m.all, match); i >= 0 {
		m.all = slices.Delete(m.all, i, i+1)
	}
}

func (m *model) learn(l learned) {
	m.forget(func(o learned) bool { return o.pair == l.pair })
	ofClient := func(o learned) bool { return o.client == l.client }
	n := 0
	for _, o := range m.all {
		if ofClient(o) {
			n++
		}
	}
	if n == m.mostOfClient {
		m.forget(ofClient)
	}
	if len(m.all) == m.most {
		m.forget(func(learned) bool { return true })
	}
	m.all = append(m.all, l)
}

// find returns what the client learned last of an address, else what anybody did.
func (m *model) find(p pair, now uint32) (name string) {
	last := learned{}
	for _, l := range m.all {
		if l.addr != p.addr {
			continue
		}
		if last = l; l.client == p.client && int32(l.until-now) > 0 {
			name = l.name
		}
	}
	if name == "" && int32(last.until-now) > 0 {
		return last.name
	}
	return name
}

// TestAsAModel: the names are those that a simple list gives.
func TestAsAModel(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) packet.Addr { return packet.IPv4(rapid.Uint32Range(1, 6).Draw(t, "address")) })
	rapid.Check(t, func(t *rapid.T) {
		m := model{most: 12, mostOfClient: 5}
		k, now := newKnown(m.most, m.mostOfClient), start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Uint32Range(0, 20).Draw(t, "later")
			l := learned{
				pair{address.Draw(t, "client"), address.Draw(t, "of")},
				rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
				now + rapid.Uint32Range(0, 100).Draw(t, "ttl"),
			}
			k.learn(l.client, l.addr, name{full: l.name}, l.until)
			m.learn(l)
			check(t, &k)

			p := pair{address.Draw(t, "who"), address.Draw(t, "where")}
			want := m.find(p, now)
			if got, ok := k.find(p.client, p.addr, now); got.full != want || ok != (want != "") {
				t.Fatalf("%q, %v, want %q", got.full, ok, want)
			}
		}
	})
}
