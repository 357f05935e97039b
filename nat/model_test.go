package nat

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapgw/internal/packet"
)

// model is the table as a map: what must be found, by whom, until when.
type model struct {
	table    *Table
	now      time.Duration
	sessions map[Key]*modelSession
	gens     [3]uint32
}

type modelSession struct {
	tr   Translation
	seen time.Duration
	ref  Ref
}

func (m *model) binding(uplink uint8) Binding {
	return Binding{Uplink: uplink, Generation: m.gens[uplink], Addresses: []packet.Addr{plus(out1, 16*int(uplink)), plus(out1, 16*int(uplink)+1)}}
}

func drawKey(t *rapid.T) Key {
	return Key{
		Inside: plus(host, rapid.IntRange(0, 3).Draw(t, "inside")), InsidePort: rapid.Uint16Range(0, 3).Draw(t, "port"),
		Remote: plus(web, rapid.IntRange(0, 2).Draw(t, "remote")), Proto: rapid.SampledFrom([]uint8{1, 6, 17}).Draw(t, "proto"),
	}
}

func (m *model) open(t *rapid.T) {
	k, uplink := drawKey(t), rapid.Uint8Range(1, 2).Draw(t, "uplink")
	b := m.binding(uplink)
	r, err := m.table.Open(k, b, after(m.now))
	old := m.sessions[k]
	if err != nil {
		if !errors.Is(err, ErrTableFull) && !errors.Is(err, ErrNoPort) && !errors.Is(err, ErrHostSessions) {
			t.Fatalf("open: %v", err)
		}
		return
	}
	if old != nil && old.tr.Uplink == uplink && old.tr.Generation == b.Generation {
		if r != old.ref {
			t.Fatalf("session %d was opened again as %d", old.ref, r)
		}
		return
	}
	tr := m.table.Translation(r)
	if tr.Key != k || tr.Uplink != uplink || tr.Generation != b.Generation {
		t.Fatalf("opened %+v for %+v", tr, k)
	}
	m.sessions[k] = &modelSession{tr: tr, seen: m.now, ref: r}
	if u, ok := m.table.Bound(k.Proto, k.Inside, k.InsidePort); !ok || u != uplink {
		t.Fatalf("endpoint bound to %d, %v", u, ok)
	}
}

func (m *model) count(t *rapid.T) {
	s := m.sessions[drawKey(t)]
	if s == nil {
		return
	}
	m.table.CountOut(s.ref, after(m.now), 1, 1, datagram)
	s.seen = m.now
}

func (m *model) sweep(t *rapid.T) {
	m.now += time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second
	m.table.Sweep(after(m.now), 0)
	for k, s := range m.sessions {
		limit := map[uint8]time.Duration{1: time.Minute, 6: 4 * time.Minute, 17: 5 * time.Minute}[k.Proto]
		idle := m.now - s.seen
		if gone := m.table.FindOut(k) == 0; gone && idle < limit || !gone && idle > limit+time.Second {
			t.Fatalf("%+v idle for %v: gone %v", k, idle, gone)
		} else if gone {
			delete(m.sessions, k)
		}
	}
}

func (m *model) purge(t *rapid.T) {
	uplink := rapid.Uint8Range(1, 2).Draw(t, "uplink")
	m.gens[uplink]++
	m.table.Purge(uplink, m.gens[uplink], after(m.now))
	for k, s := range m.sessions {
		if s.tr.Uplink == uplink {
			delete(m.sessions, k)
		}
	}
}

// check compares everything that can be seen of the table with the model.
func (m *model) check(t *rapid.T) {
	endpoints := make(map[InKey]InKey) // outside endpoint → by whom
	for k, s := range m.sessions {
		if got := m.table.FindOut(k); got != s.ref {
			t.Fatalf("outbound %+v: found %d, want %d", k, got, s.ref)
		}
		in := s.tr.InKey()
		if got := m.table.FindIn(in); got != s.ref {
			t.Fatalf("inbound %+v: found %d, want %d", in, got, s.ref)
		}
		if got := m.table.Owned(in.Uplink, k.Proto, in.Outside, in.OutsidePort); got != Mapped {
			t.Fatalf("port of %+v: ownership %d", in, got)
		}
		where := InKey{Uplink: in.Uplink, Proto: k.Proto, Outside: in.Outside, OutsidePort: in.OutsidePort}
		who := InKey{Remote: k.Inside, RemotePort: k.InsidePort}
		if other, taken := endpoints[where]; taken && other != who && k.Proto != protoTCP {
			t.Fatalf("outside endpoint %v has two inside endpoints", where)
		}
		endpoints[where] = who
	}
	n, hosts := 0, make(map[packet.Addr]bool)
	m.table.Sessions(func(i Info) bool {
		hosts[i.Inside] = true
		if n++; m.sessions[i.Key] == nil {
			t.Fatalf("%+v should be gone", i)
		}
		return true
	})
	if s := m.table.Stats(); n != len(m.sessions) || s.Sessions != n || s.ByUplink[1]+s.ByUplink[2] != n || s.Hosts != len(hosts) {
		t.Fatalf("%d sessions, %d in the model, stats %+v", n, len(m.sessions), s)
	}
}

func newModel(t testing.TB, change func(*Config)) *model {
	return &model{table: newTable(t, change), sessions: make(map[Key]*modelSession), gens: [3]uint32{0, 1, 1}}
}

// Random operations, from tiny tables that are always full to comfortable ones.
func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, func(c *Config) {
			c.Limits.Sessions = rapid.SampledFrom([]int{0, 10}).Draw(rt, "limit")
			c.MaxSessions = rapid.SampledFrom([]int{3, 20, 300}).Draw(rt, "records")
			c.Ports = []PortRange{{3000, 3000 + rapid.SampledFrom([]uint16{0, 5, 100}).Draw(rt, "ports")}}
		})
		rt.Repeat(map[string]func(*rapid.T){
			"open": m.open, "open again": m.open, "open more": m.open, "count": m.count, "sweep": m.sweep, "purge": m.purge,
			"": m.check,
		})
	})
}

// Readers forward without locks while sessions open, move, end and their records are used again. What they find is always
// the session they asked for: the quarantine and the order of publishing see to that. Instead of waiting for seconds to
// pass, time moves only after every reader has finished what it was doing.
func TestConcurrentReaders(t *testing.T) {
	table := newTable(t, func(c *Config) { c.MaxSessions = 64; c.Ports = []PortRange{{3000, 3999}} })
	keys := make([]Key, 48)
	for i := range keys {
		keys[i] = key(protoTCP, uint16(i), plus(web, i%3), 443)
	}
	var stop atomic.Bool
	var done [3]atomic.Uint32
	var readers sync.WaitGroup
	for n := range done {
		readers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				read(t, table, keys[i%len(keys)])
				done[n].Add(1)
			}
		})
	}
	churn(t, table, keys, func() {
		for n := range done {
			for from := done[n].Load(); done[n].Load()-from < 2; {
				runtime.Gosched()
			}
		}
	})
	stop.Store(true)
	readers.Wait()
}

// read does what a forwarder does with both directions of a session.
func read(t *testing.T, table *Table, k Key) {
	r := table.FindOut(k)
	if r == 0 {
		runtime.Gosched()
		return
	}
	runtime.Gosched() // much happens between finding a session and using it
	tr := table.Translation(r)
	if tr.Key != k {
		t.Errorf("asked for %+v, found %+v", k, tr)
	}
	table.CountOut(r, after(0), 60, 1, segment(ack))
	if in := table.FindIn(tr.InKey()); in != 0 {
		runtime.Gosched()
		if got := table.Translation(in); got.InKey() != tr.InKey() {
			t.Errorf("asked for %+v, found %+v", tr.InKey(), got)
		}
		table.CountIn(in, after(0), 60, 1, segment(fin))
	}
}

// churn opens, moves and ends sessions until every record has been reused several times.
func churn(t *testing.T, table *Table, keys []Key, grace func()) {
	d := time.Duration(0)
	open := func(keys []Key, b Binding) {
		for _, k := range keys {
			if _, err := table.Open(k, b, after(d)); err != nil && !errors.Is(err, ErrTableFull) {
				t.Error(err)
			}
		}
	}
	for round := range uint32(150) {
		half := len(keys) / 2
		open(keys[:half], bind1)
		open(keys[:half/2], bind2)
		table.Purge(isp1+uint8(round&1), 1+round&1, after(d))
		for range quarantineSweeps + 1 {
			table.Sweep(after(d), 0) // no time has passed: no record may come out of quarantine for the other half
		}
		open(keys[half:], bind1)
		table.Sessions(func(Info) bool { return true })
		_ = table.Stats()
		for range quarantineSweeps + 1 {
			grace()
			d += 2 * time.Minute
			table.Sweep(after(d), 0)
		}
	}
}
