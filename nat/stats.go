package nat

import (
	"errors"
	"sync/atomic"

	"tapgw/internal/packet"
)

// Stats is the table at one moment.
type Stats struct {
	Sessions, Peak, Max int
	Quarantined         int      // deleted sessions whose records are not free yet
	ByUplink            [256]int // live sessions
	Mappings            int
	Hosts               int    // inside hosts with sessions
	Offered             int    // live sessions that remotes opened and the inside has not answered
	Opened              uint64 // sessions, since the start
	Shared              uint64 // mappings opened on a port that another has, since the start
	Held                uint64 // ports passed over because a local socket has them, since the start
	Refused             Refused
}

// Refused counts failed Opens by their error.
type Refused struct{ TableFull, NoPort, HostLimit, Binding uint64 }

// tally is what Stats is made of.
type tally struct {
	sessions, peak, mappings   atomic.Int64
	byUplink                   [256]atomic.Int64
	connections                [256]atomic.Int64     // of TCP
	carried                    [256][2]atomic.Uint64 // bytes of sessions that have ended, by uplink and direction
	total, shared, held        atomic.Uint64
	tableFull, noPort, binding atomic.Uint64
	hostLimit                  atomic.Uint64
}

func (c *tally) opened(uplink, proto uint8) {
	if proto == packet.ProtoTCP {
		c.connections[uplink].Add(1)
	}
	c.total.Add(1)
	c.byUplink[uplink].Add(1)
	if n := c.sessions.Add(1); n > c.peak.Load() {
		c.peak.Store(n) // callers hold the table's lock
	}
}

func (c *tally) closed(uplink, proto uint8, out, in uint64) {
	if proto == packet.ProtoTCP {
		c.connections[uplink].Add(-1)
	}
	c.carried[uplink][outbound].Add(out)
	c.carried[uplink][inbound].Add(in)
	c.byUplink[uplink].Add(-1)
	c.sessions.Add(-1)
}

func (c *tally) refused(err error) {
	switch {
	case errors.Is(err, ErrAnswered): // nobody asked for a session
	case errors.Is(err, ErrTableFull):
		c.tableFull.Add(1)
	case errors.Is(err, ErrNoPort):
		c.noPort.Add(1)
	case errors.Is(err, ErrHostSessions), errors.Is(err, ErrHostPorts), errors.Is(err, ErrHostRate):
		c.hostLimit.Add(1)
	default:
		c.binding.Add(1)
	}
}

// SessionsOn is the number of live sessions of an uplink. It takes no lock.
func (t *Table) SessionsOn(uplink uint8) int { return int(t.stats.byUplink[uplink].Load()) }

// Connections is the number of live TCP sessions of an uplink. It takes no lock.
func (t *Table) Connections(uplink uint8) int { return int(t.stats.connections[uplink].Load()) }

// Stats returns the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &t.stats
	s := Stats{
		Sessions: int(c.sessions.Load()), Peak: int(c.peak.Load()), Max: t.cfg.MaxSessions,
		Quarantined: t.quarantine.length, Mappings: int(c.mappings.Load()), Hosts: len(t.hosts), Offered: t.peers.offered,
		Opened: c.total.Load(), Shared: c.shared.Load(), Held: c.held.Load(),
		Refused: Refused{TableFull: c.tableFull.Load(), NoPort: c.noPort.Load(), HostLimit: c.hostLimit.Load(), Binding: c.binding.Load()},
	}
	for u := range c.byUplink {
		s.ByUplink[u] = int(c.byUplink[u].Load())
	}
	return s
}

// PortsOf counts the outside ports of a protocol on all addresses of an uplink, and those that no new mapping is given at present.
func (t *Table) PortsOf(uplink, proto uint8) (taken, all int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.spaces[uplink].Load()
	if list == nil {
		return 0, 0
	}
	for _, s := range *list {
		if s.proto == proto {
			taken, all = taken+len(s.pool)-s.free, all+len(s.pool)
		}
	}
	return taken, all
}

// Info is one live session, for people.
type Info struct {
	Translation
	Ref                   Ref
	Created, Seen         Tick // opened; last refreshed
	BytesOut, BytesIn     uint64
	PacketsOut, PacketsIn uint32 // wrap
	Rule                  uint32 // as given to Open
}

// Sessions calls yield for every live session until it returns false. It may be slow: the lock is not held meanwhile.
func (t *Table) Sessions(yield func(Info) bool) {
	for r := uint32(1); r <= t.used.Load(); r++ {
		if info, ok := t.info(r); ok && !yield(info) {
			return
		}
	}
}

func (t *Table) info(r uint32) (Info, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.current(r).Live() {
		return Info{}, false
	}
	own := t.records[r].own.Load()
	out, in, seen := &t.counts[outbound][r], &t.counts[inbound][r], t.lastSeen(r)
	return Info{
		Translation: t.translation(r), Ref: Ref(r),
		Created: seen - Tick(max(0, ownSince(own, seen))), Seen: seen,
		BytesOut: out.bytes.Load() & bytesMask, BytesIn: in.bytes.Load() & bytesMask,
		PacketsOut: out.packets.Load(), PacketsIn: in.packets.Load(),
		Rule: t.Rule(Ref(r)),
	}, true
}
