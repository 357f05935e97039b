package nat

import (
	"errors"
	"maps"
	"runtime"
	"slices"
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

	filtering Filtering
}

type modelSession struct {
	tr      Translation
	seen    time.Duration
	ref     Ref
	offered bool
}

func (m *model) binding(uplink uint8) Binding {
	return Binding{Uplink: uplink, Generation: m.gens[uplink], Addresses: []packet.Addr{plus(out1, 16*int(uplink)), plus(out1, 16*int(uplink)+1)}}
}

func drawKey(t *rapid.T) Key {
	k := Key{
		Inside: plus(host, rapid.IntRange(0, 3).Draw(t, "inside")), InsidePort: rapid.Uint16Range(3000, 3003).Draw(t, "port"),
		Remote: plus(web, rapid.IntRange(0, 2).Draw(t, "remote")), Proto: rapid.SampledFrom([]uint8{1, 6, 17, 50}).Draw(t, "proto"),
	}
	if !HasPorts(k.Proto) {
		k.InsidePort = 0
	}
	return k
}

func (m *model) open(t *rapid.T) {
	k, uplink := drawKey(t), rapid.Uint8Range(1, 2).Draw(t, "uplink")
	b := m.binding(uplink)
	if k.Inside == plus(host, 3) && uplink == isp2 { // has an address of its own there
		b.Addresses, b.Exact = []packet.Addr{plus(out1, 99)}, true
		b.Inward = rapid.Bool().Draw(t, "inward")
	}
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
	if b.Exact && tr.OutsidePort != k.InsidePort {
		t.Fatalf("port %d for %d", tr.OutsidePort, k.InsidePort)
	}
	m.sessions[k] = &modelSession{tr: tr, seen: m.now, ref: r, offered: b.Inward}
	if u, ok := m.table.Bound(k.Proto, k.Inside, k.InsidePort); (!ok || u != uplink) && !b.Inward {
		t.Fatalf("endpoint bound to %d, %v", u, ok)
	}
}

// drawSession is one of the sessions, nil when there is none.
func (m *model) drawSession(t *rapid.T) *modelSession {
	if len(m.sessions) == 0 {
		return nil
	}
	byRef := func(a, b *modelSession) int { return int(a.ref) - int(b.ref) }
	return rapid.SampledFrom(slices.SortedFunc(maps.Values(m.sessions), byRef)).Draw(t, "session")
}

func (m *model) count(t *rapid.T) {
	s := m.drawSession(t)
	if s == nil {
		return
	}
	if in := rapid.Bool().Draw(t, "in"); in && !s.offered {
		m.table.CountIn(s.ref, after(m.now), 1, 1, datagram)
	} else if in {
		m.table.CountIn(s.ref, after(m.now), 1, 1, datagram)
		return
	} else {
		m.table.CountOut(s.ref, after(m.now), 1, 1, datagram)
	}
	s.seen, s.offered = m.now, false
}

// openIn has a remote send to a port that is mapped, or is not. What the filter says of it, the model finds by looking at all
// sessions.
func (m *model) openIn(t *rapid.T) {
	s := m.drawSession(t)
	if s == nil {
		return
	}
	in := s.tr.InKey()
	in.Remote, in.RemotePort = plus(web, rapid.IntRange(0, 5).Draw(t, "remote")), rapid.Uint16Range(0, 1).Draw(t, "remote port")
	in.OutsidePort += uint16(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "next port"))
	known := m.table.FindIn(in)
	r, err := m.table.OpenIn(in, m.binding(in.Uplink), after(m.now))
	switch {
	case err == nil && known != 0:
		if r != known {
			t.Fatalf("session %d of %+v was offered again as %d", known, in, r)
		}
	case err == nil:
		tr := m.table.Translation(r)
		if tr.InKey() != in || tr.State != Offered || m.sessions[tr.Key] != nil || !m.lets(tr.Key, in) {
			t.Fatalf("%+v opened %+v", in, tr)
		}
		m.sessions[tr.Key] = &modelSession{tr: tr, seen: m.now, ref: r, offered: true}
	case errors.Is(err, ErrFiltered) && known == 0 && m.mustLet(in):
		t.Fatalf("%+v was filtered", in)
	case !errors.Is(err, ErrFiltered) && !errors.Is(err, ErrTableFull) && !errors.Is(err, ErrHostSessions):
		t.Fatalf("%+v: %v", in, err)
	}
}

// lets reports whether the filter lets a remote in to the inside endpoint of k.
func (m *model) lets(k Key, in InKey) bool {
	filter := map[uint8]Filter{protoUDP: m.filtering.UDP, protoTCP: m.filtering.TCP}[k.Proto]
	for other, s := range m.sessions {
		same := other.Inside == k.Inside && other.InsidePort == k.InsidePort && other.Proto == k.Proto
		if same && s.tr.Uplink == in.Uplink && s.tr.OutsidePort == in.OutsidePort && !s.offered &&
			(filter == EndpointIndependent || filter == AddressDependent && other.Remote == in.Remote) {
			return true
		}
	}
	return false
}

// mustLet reports whether nothing speaks against a remote: the port belongs to one inside endpoint, which has no other session
// with the remote, and there is room for what nobody may answer.
func (m *model) mustLet(in InKey) bool {
	var owner *Key
	offered := 0
	for k, s := range m.sessions {
		if s.offered {
			offered++
		}
		if k.Proto != in.Proto || s.tr.Uplink != in.Uplink || s.tr.Outside != in.Outside || s.tr.OutsidePort != in.OutsidePort {
			continue
		}
		if owner != nil && (owner.Inside != k.Inside || owner.InsidePort != k.InsidePort) {
			return false
		}
		owner = &k
	}
	if owner == nil || offered >= m.table.maxOfferedTo() {
		return false
	}
	k := *owner
	k.Remote, k.RemotePort = in.Remote, in.RemotePort
	return m.sessions[k] == nil && m.lets(k, in) && m.everAlone(in)
}

// everAlone reports whether a port was never shared: one that was belongs to nobody until all have left it.
func (m *model) everAlone(in InKey) bool {
	return m.table.findSpace(in.Uplink, in.Proto, in.Outside).words[in.OutsidePort].Load()&portKind == portMapped
}

// refilter changes the filters, as a reload does.
func (m *model) refilter(t *rapid.T) {
	filter := rapid.SampledFrom([]Filter{AddressAndPortDependent, AddressDependent, EndpointIndependent})
	m.filtering = Filtering{UDP: filter.Draw(t, "udp"), TCP: filter.Draw(t, "tcp")}
	m.table.SetFiltering(m.filtering)
}

func (m *model) sweep(t *rapid.T) {
	m.now += time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second
	m.table.Sweep(after(m.now), 0)
	for k, s := range m.sessions {
		limit := map[uint8]time.Duration{1: time.Minute, 6: 4 * time.Minute, 17: 5 * time.Minute, 50: 10 * time.Minute}[k.Proto]
		if s.offered {
			limit = offerTime
		}
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
	offered := 0
	for k, s := range m.sessions {
		if s.offered {
			offered++
		}
		if got := m.table.FindOut(k); got != s.ref {
			t.Fatalf("outbound %+v: found %d, want %d", k, got, s.ref)
		}
		in := s.tr.InKey()
		if got := m.table.FindIn(in); got != s.ref {
			t.Fatalf("inbound %+v: found %d, want %d", in, got, s.ref)
		}
		if got := m.table.Owned(in.Uplink, k.Proto, in.Outside, in.OutsidePort); HasPorts(k.Proto) && got != Mapped {
			t.Fatalf("port of %+v: ownership %d", in, got)
		}
		where := InKey{Uplink: in.Uplink, Proto: k.Proto, Outside: in.Outside, OutsidePort: in.OutsidePort}
		if !HasPorts(k.Proto) {
			where.Remote = k.Remote
		}
		who := InKey{Remote: k.Inside, RemotePort: k.InsidePort}
		if other, taken := endpoints[where]; taken && other != who && k.Proto != protoTCP {
			t.Fatalf("outside endpoint %v has two inside endpoints", where)
		}
		endpoints[where] = who
	}
	m.checkPools(t)
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
	} else if s.Offered != offered || offered > m.table.maxOffered() {
		t.Fatalf("%d sessions are offered, at most %d may be, stats %+v", offered, m.table.maxOffered(), s)
	}
}

// checkPools: each port of a pool is free, rests, or is taken.
func (m *model) checkPools(t *rapid.T) {
	for u := range m.table.spaces {
		list := m.table.spaces[u].Load()
		if list == nil {
			continue
		}
		for _, s := range *list {
			if s.proto == protoICMP {
				continue
			}
			taken := 0
			for _, port := range m.table.ports {
				w := s.words[port].Load()
				if kind := w & portKind; (kind == portMapped || kind == portShared) && w&pooledBit == 0 {
					taken++
				}
			}
			if s.free+s.rest+taken != len(s.pool) {
				t.Fatalf("%d ports free, %d resting, %d taken of %d", s.free, s.rest, taken, len(s.pool))
			}
		}
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
		m.refilter(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"open in": m.openIn, "open in again": m.openIn, "filter": m.refilter,
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
