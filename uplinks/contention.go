package uplinks

import (
	"math"
	"sync/atomic"
	"time"
)

// Activity is what the sessions of an uplink do.
type Activity struct {
	Connections int // live sessions of TCP: most others, as queries of names, will never carry much
	Down, Up    Streams
}

// Streams are the sessions that carry data in one direction.
type Streams struct {
	Active int     // carry data now
	New    int     // of these, those too young for a rate
	Steady float64 // bits per second that the others carry, over their lives
	Bytes  uint64  // by all sessions there have been
}

const (
	// saturated is the utilisation from which sessions are taken to get less than they want.
	saturated = 0.9
	// otherDecay is the time constant of what is known of the traffic that no session carries.
	otherDecay = time.Second
	// leastShare of the capacity can be expected always, so that full uplinks can be told apart.
	leastShare = 1e-4
)

// contention is who wants the capacity of one direction.
type contention struct {
	total, carried uint64 // bytes at the last reading

	idle   atomic.Int64 // connections that carry nothing, less other sessions that carry data
	old    atomic.Int64 // sessions whose rate is known
	steady atomicFloat  // bits per second that these carry
	other  atomicFloat  // bits per second that no session carries
}

// Contend takes a reading of the sessions, with the interface's totals at the same moment. Connections that carry nothing are taken
// to go on so.
func (m *Meter) Contend(now time.Time, total Counters, a Activity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	elapsed := now.Sub(m.contendedAt)
	if m.contendedAt.IsZero() || elapsed < minInterval {
		elapsed = 0
	}
	m.down.read(elapsed, total.RxBytes, a.Connections, a.Down)
	m.up.read(elapsed, total.TxBytes, a.Connections, a.Up)
	m.contendedAt = now
}

// read takes a reading of one direction, some time after the last one; 0 only sets the starting point.
func (c *contention) read(elapsed time.Duration, total uint64, connections int, s Streams) {
	c.idle.Store(int64(connections - s.Active))
	c.old.Store(int64(s.Active - s.New))
	c.steady.store(s.Steady)
	if elapsed > 0 {
		rate := float64(rest(total-c.total, s.Bytes-c.carried)) * 8 / elapsed.Seconds()
		c.other.store(rate + (c.other.load()-rate)*math.Exp(-float64(elapsed)/float64(otherDecay)))
	}
	c.total, c.carried = total, s.Bytes
}

// rest is what is left of a count without a part of it; counts that went backwards, as those of a new interface, leave nothing.
func rest(total, part uint64) uint64 {
	if total > math.MaxInt64 || part > total {
		return 0
	}
	return total - part
}

func (c *contention) reset() {
	c.total, c.carried = 0, 0
	c.idle.Store(0)
	c.old.Store(0)
	c.steady.store(0)
	c.other.store(0)
}

// Expect is the rate in bits per second that one more session may download with beside so many connections: in the direction
// that is worse off, as a download needs the other one for its acknowledgements, and most sessions are downloads.
func (m *Meter) Expect(connections int) float64 {
	down, up := m.capDown.load(), m.capUp.load()
	share := min(m.down.expect(m.rx.load(), down, connections), m.up.expect(m.tx.load(), up, connections))
	return max(share, leastShare) * down
}

// expect is the share of a capacity that one more session may get. Where it is used up, that is an equal share of what others
// leave; else those whose rate is known want no more, and it shares what they leave with the new ones.
func (c *contention) expect(rate, capacity float64, connections int) float64 {
	contending := max(0, int64(connections)-c.idle.Load())
	left := capacity - c.other.load()
	if rate < saturated*capacity {
		old := min(c.old.Load(), contending)
		contending -= old
		left -= c.steady.load()
	}
	return left / float64(contending+1) / capacity
}
