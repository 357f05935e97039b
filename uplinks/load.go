package uplinks

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rateDecay   = 500 * time.Millisecond // time constant of a falling rate; a rising one shows at once
	chargeDecay = time.Second            // after which a session's own traffic shows in the measurement
	demandDecay = 10 * time.Second       // time constant of what a session is expected to need
	minInterval = 10 * time.Millisecond  // samples closer together measure noise

	// A session is expected to need a share of the largest capacity: at first 1/400, learned within 1/2000 … 1/200. The
	// bounds are narrow because rates include traffic that is not ours, and idle sessions say nothing of the next one.
	demandInitial = 1.0 / 400
	demandMin     = 1.0 / 2000
	demandMax     = 1.0 / 200
	// chargeScale is the fixed-point unit of pending charges, so that they add up atomically.
	chargeScale = 1 << 16
)

// Demand is what one more session is expected to need, learned from all meters together: the same bits per second on every
// uplink, for a rate learned per uplink would call sessions cheap where a slow uplink throttles them.
type Demand struct {
	mu       sync.Mutex
	meters   map[*Meter]contribution
	updated  time.Time
	learned  bool        // sessions have been seen
	down, up atomicFloat // bits per second and session
}

// contribution is the last reading of one meter.
type contribution struct {
	down, up                 float64
	capacityDown, capacityUp float64
	sessions                 int
}

// NewDemand returns the estimate to be shared by the meters of one gateway.
func NewDemand() *Demand {
	d := &Demand{meters: make(map[*Meter]contribution)}
	d.down.store(DefaultCapacity * demandInitial)
	d.up.store(DefaultCapacity * demandInitial)
	return d
}

// learn takes a meter's reading.
func (d *Demand) learn(now time.Time, m *Meter, c contribution) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meters[m] = c
	var sum, most contribution
	for _, c := range d.meters {
		sum.down, sum.up, sum.sessions = sum.down+c.down, sum.up+c.up, sum.sessions+c.sessions
		most.capacityDown, most.capacityUp = max(most.capacityDown, c.capacityDown), max(most.capacityUp, c.capacityUp)
	}
	if sum.sessions == 0 && !d.learned {
		d.down.store(most.capacityDown * demandInitial)
		d.up.store(most.capacityUp * demandInitial)
		return
	}
	weight := 1 - math.Exp(-float64(max(0, now.Sub(d.updated)))/float64(demandDecay))
	if !d.learned {
		weight = 0 // the initial value is where learning starts
	}
	d.down.store(expect(d.down.load(), sum.down, sum.sessions, most.capacityDown, weight))
	d.up.store(expect(d.up.load(), sum.up, sum.sessions, most.capacityUp, weight))
	d.updated, d.learned = now, true
}

func expect(old, rate float64, sessions int, capacity, weight float64) float64 {
	if sessions > 0 {
		old += (rate/float64(sessions) - old) * weight
	}
	return min(max(old, capacity*demandMin), capacity*demandMax)
}

func (d *Demand) forget(m *Meter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.meters, m)
}

// Meter measures the load of one uplink. It is safe for concurrent use; Charge, Load and Rates take no lock.
type Meter struct {
	demand *Demand

	mu      sync.Mutex // guards the readings below
	last    Counters
	lastAt  time.Time
	sampled bool

	rx, tx         atomicFloat // bits per second
	capDown, capUp atomicFloat
	confidence     atomicFloat
	charges        atomic.Uint64 // sessions not yet measured, times chargeScale

	contendedAt time.Time
	down, up    contention
}

// atomicFloat is a float64 read and written atomically.
type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) load() float64   { return math.Float64frombits(f.bits.Load()) }
func (f *atomicFloat) store(v float64) { f.bits.Store(math.Float64bits(v)) }

// NewMeter returns a meter that shows no load. All meters of a gateway share one Demand.
func NewMeter(d *Demand) *Meter {
	m := &Meter{demand: d}
	for _, capacity := range []*atomicFloat{&m.capDown, &m.capUp} {
		capacity.store(DefaultCapacity)
	}
	return m
}

// Sample takes a reading: the interface totals, the capacity (0 stands for DefaultCapacity) and the number of live sessions. Readings 100 ms to 1 s apart are best. The first one, and one whose counters went backwards
// (wrapped, reset, or of a new interface), only sets the starting point.
func (m *Meter) Sample(now time.Time, c Counters, e Estimate, sessions int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capUp.store(float64(nonZero(e.Up, DefaultCapacity)))
	m.capDown.store(float64(nonZero(e.Down, DefaultCapacity)))
	m.confidence.store(e.Confidence)
	elapsed := now.Sub(m.lastAt)
	backwards := c.RxBytes < m.last.RxBytes || c.TxBytes < m.last.TxBytes
	if m.sampled && elapsed >= 0 && elapsed < minInterval {
		return
	}
	if m.sampled && !backwards && elapsed > 0 {
		m.rx.store(follow(m.rx.load(), c.RxBytes-m.last.RxBytes, elapsed))
		m.tx.store(follow(m.tx.load(), c.TxBytes-m.last.TxBytes, elapsed))
		m.decayCharges(elapsed)
	}
	m.last, m.lastAt, m.sampled = c, now, true
	m.demand.learn(now, m, contribution{m.rx.load(), m.tx.load(), m.capDown.load(), m.capUp.load(), sessions})
}

// follow is the new rate: a peak at once, a fall smoothed.
func follow(old float64, bytes uint64, elapsed time.Duration) float64 {
	rate := float64(bytes) * 8 / elapsed.Seconds()
	if rate >= old {
		return rate
	}
	return rate + (old-rate)*math.Exp(-float64(elapsed)/float64(rateDecay))
}

// decayCharges takes off what has become visible, leaving charges that arrive meanwhile alone.
func (m *Meter) decayCharges(elapsed time.Duration) {
	seen := 1 - math.Exp(-float64(elapsed)/float64(chargeDecay))
	off := uint64(math.Ceil(float64(m.charges.Load()) * seen))
	m.charges.Add(-off)
}

// Charge counts a session that was just placed on the uplink, before its traffic shows.
func (m *Meter) Charge() { m.charges.Add(chargeScale) }

// Load is the larger of up and down utilisation, 1 being the capacity; above 1 when more than that was measured or placed.
func (m *Meter) Load() float64 {
	placed := float64(m.charges.Load()) / chargeScale
	down := (m.rx.load() + placed*m.demand.down.load()) / m.capDown.load()
	up := (m.tx.load() + placed*m.demand.up.load()) / m.capUp.load()
	return max(down, up)
}

// Rates are the measured rates in bits per second, without charges.
func (m *Meter) Rates() (rx, tx float64) { return m.rx.load(), m.tx.load() }

// Estimate is what the last reading knew of the capacity.
func (m *Meter) Estimate() Estimate {
	return Estimate{Capacity{Up: uint64(m.capUp.load()), Down: uint64(m.capDown.load())}, m.confidence.load()}
}

// Reset forgets all readings and charges: for an interface that is gone or was replaced.
func (m *Meter) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.lastAt, m.sampled = Counters{}, time.Time{}, false
	m.rx.store(0)
	m.tx.store(0)
	m.charges.Store(0)
	m.contendedAt = time.Time{}
	m.down.reset()
	m.up.reset()
	m.demand.forget(m)
}
