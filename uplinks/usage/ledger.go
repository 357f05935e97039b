package usage

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"tapgw/uplinks"
)

// Plan is what the configuration says of an uplink's data; of one that it says nothing of, only the sum of the month is kept.
type Plan struct {
	Cap        uint64 // bytes of both directions in a period, 0 for none
	BillingDay int    // 1–31
	Warn, Stop int    // percent of Cap, 0 for never
}

// freePlan is that of an uplink without one.
var freePlan = Plan{BillingDay: 1}

// Level is how much of a cap was used; its text form is part of the API.
type Level string

// The levels.
const (
	Fine    Level = "ok"      // or there is no cap
	Warned  Level = "warning" // the share to warn of was reached
	Stopped Level = "stopped" // the share to stop at was reached
	Allowed Level = "allowed" // … but the user wants the uplink used in this period
)

// Usage is what an uplink has used in the present period.
type Usage struct {
	Used, Cap uint64 // bytes; Cap 0 for none
	Ends      time.Time
	Level     Level
}

// Device is whose counters are read: an interface number, of one boot of the machine.
type Device struct {
	Boot  string
	Index int
}

// Sample is a reading of one uplink's device.
type Sample struct {
	Name string // of the uplink
	Device
	uplinks.Counters
}

// Limits of a ledger: uplinks that come under ever new names, and clocks that jump, must not let it grow.
const (
	maxEntries = 64
	maxPeriods = 4
)

// entry is what is kept of one uplink.
type entry struct {
	Day     int      `json:"billing_day"` // that Periods were counted by
	Boot    string   `json:"boot"`        // these four are of the last Sample, Index is 0 before the first
	Index   int      `json:"index"`
	Rx      uint64   `json:"rx_bytes"`
	Tx      uint64   `json:"tx_bytes"`
	Seen    int64    `json:"seen"`    // when that was, in seconds of Unix
	Periods []period `json:"periods"` // the one that was counted in last comes first
	Warned  Date     `json:"warned"`  // the period whose warning was given
	Allowed Date     `json:"allowed"` // the period in which the cap does not count
}

// period is what was used in one, which has the name of its first day.
type period struct {
	Start Date   `json:"start"`
	Bytes uint64 `json:"bytes"`
}

// Ledger counts. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	entries map[string]*entry
	plans   map[string]Plan
}

// ErrUnknown is returned for an uplink that was never counted and has no plan.
var ErrUnknown = errors.New("nothing is counted of this uplink")

// New returns an empty ledger.
func New() *Ledger { return &Ledger{entries: make(map[string]*entry)} }

// SetPlans replaces the plans of all uplinks, by name. What was used in the running period stays.
func (l *Ledger) SetPlans(plans map[string]Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans = maps.Clone(plans)
}

func (l *Ledger) plan(name string) Plan {
	if p, ok := l.plans[name]; ok {
		return p
	}
	return freePlan
}

// Count adds what the devices of all uplinks have carried since the last call, be it of a daemon before this one. The first sample
// of an uplink only sets the starting point. One under a new name that has the device of one that is gone takes over its count.
// Count reports whether there is a name or a device that it did not know: a crash loses what is counted of it before Render.
func (l *Ledger) Count(now time.Time, samples []Sample) (fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range samples {
		e := l.entries[s.Name]
		fresh = fresh || e == nil || e.device() != s.Device
		if e == nil {
			e = l.adopt(s, samples)
		}
		present := e.settle(now, l.plan(s.Name).BillingDay)
		present.Bytes = add(present.Bytes, l.since(e, s))
		e.Boot, e.Index, e.Rx, e.Tx, e.Seen = s.Boot, s.Index, s.RxBytes, s.TxBytes, now.Unix()
	}
	return fresh
}

// adopt makes the entry of an uplink that has none, from that of a renamed one if there is such.
func (l *Ledger) adopt(s Sample, present []Sample) *entry {
	e := new(entry)
	for name, old := range l.entries {
		gone := !slices.ContainsFunc(present, func(p Sample) bool { return p.Name == name })
		if gone && old.device() == s.Device {
			e = old
			delete(l.entries, name)
			break
		}
	}
	l.put(s.Name, e)
	return e
}

// put adds an entry, for which the one that was seen the longest ago makes room.
func (l *Ledger) put(name string, e *entry) {
	if len(l.entries) >= maxEntries {
		delete(l.entries, slices.MinFunc(slices.Collect(maps.Keys(l.entries)), func(a, b string) int {
			return cmp.Or(cmp.Compare(l.entries[a].Seen, l.entries[b].Seen), cmp.Compare(a, b))
		}))
	}
	l.entries[name] = e
}

func (e *entry) device() Device { return Device{e.Boot, e.Index} }

// since is what a device has carried since it was last read, for whatever uplink; all it ever did if it is new, or has begun anew.
func (l *Ledger) since(e *entry, s Sample) uint64 {
	if e.Index == 0 {
		return 0
	}
	if e.device() != s.Device {
		e = &entry{}
		for _, other := range l.entries {
			if other.device() == s.Device && other.Seen >= e.Seen {
				e = other
			}
		}
	}
	if s.RxBytes < e.Rx || s.TxBytes < e.Tx {
		e = &entry{}
	}
	return add(s.RxBytes-e.Rx, s.TxBytes-e.Tx)
}

// add is a sum that stays at the largest number.
func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// clockFloor is before any time that a clock which was set can show: without a battery, machines begin in 1970.
var clockFloor = Date{2026, time.January, 1}

// settle makes the present period the first of e's, and returns it. With a period for each time that the clock shows, right or
// wrong, nothing is lost when it jumps and returns. The count goes on when the billing day becomes another.
func (e *entry) settle(now time.Time, day int) *period {
	start := e.start(now, day)
	if e.Day != 0 && e.Day != day {
		e.rename(e.start(now, e.Day), start)
	}
	e.Day = day
	p := period{start, e.used(start)}
	others := slices.DeleteFunc(e.Periods, func(o period) bool { return o.Start == start })
	e.Periods = slices.Insert(others[:min(len(others), maxPeriods-1)], 0, p)
	return &e.Periods[0]
}

// start is the name of the present period, by a billing day; of the last one that was counted in while the clock is not set.
func (e *entry) start(now time.Time, day int) Date {
	if dateOf(now).before(clockFloor) && len(e.Periods) > 0 {
		return e.Periods[0].Start
	}
	start, _ := Period(now, day)
	return start
}

// used is the bytes of a period.
func (e *entry) used(start Date) uint64 {
	for _, p := range e.Periods {
		if p.Start == start {
			return p.Bytes
		}
	}
	return 0
}

// rename moves what is known of a period to another.
func (e *entry) rename(from, to Date) {
	if from == to {
		return
	}
	used := e.used(from)
	e.Periods = slices.DeleteFunc(e.Periods, func(p period) bool { return p.Start == from || p.Start == to })
	e.Periods = slices.Insert(e.Periods, 0, period{to, used})
	for _, d := range []*Date{&e.Warned, &e.Allowed} {
		if *d == from {
			*d = to
		}
	}
}

// Of returns what an uplink has used; nothing, for one that is not known.
func (l *Ledger) Of(now time.Time, name string) Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(now, name)
}

func (l *Ledger) of(now time.Time, name string) Usage {
	p, e := l.plan(name), l.entries[name]
	if e == nil {
		e = &entry{Day: p.BillingDay}
	}
	counted := e.start(now, e.Day) // the billing day may be another since
	u := Usage{Used: e.used(counted), Cap: p.Cap, Ends: ends(now, e.start(now, p.BillingDay), p.BillingDay)}
	u.Level = level(u, p, e.Allowed == counted)
	return u
}

// ends is when the period that began on a day does.
func ends(now time.Time, start Date, day int) time.Time {
	_, next := Period(time.Date(start.Year, start.Month, start.Day, 12, 0, 0, 0, now.Location()), day)
	return time.Date(next.Year, next.Month, next.Day, 0, 0, 0, 0, now.Location())
}

func level(u Usage, p Plan, allowed bool) Level {
	reached := func(percent int) bool { return percent > 0 && u.Used >= p.Cap*uint64(percent)/100 }
	switch {
	case p.Cap == 0:
		return Fine
	case reached(p.Stop) && allowed:
		return Allowed
	case reached(p.Stop):
		return Stopped
	case reached(p.Warn):
		return Warned
	}
	return Fine
}

// Warn reports once in a period that the share to warn of was reached; and again after it no longer was.
func (l *Ledger) Warn(now time.Time, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[name]
	if e == nil {
		return false
	}
	present, before := e.start(now, e.Day), e.Warned
	if e.Warned = (Date{}); l.of(now, name).Level != Fine {
		e.Warned = present
	}
	return e.Warned != (Date{}) && e.Warned != before
}

// Set says what was used in the present period, as the ISP's own count differs.
func (l *Ledger) Set(now time.Time, name string, used uint64) error {
	return l.change(now, name, func(_ *entry, present *period) { present.Bytes = used })
}

// Allow has the cap not count until the present period ends.
func (l *Ledger) Allow(now time.Time, name string) error {
	return l.change(now, name, func(e *entry, present *period) { e.Allowed = present.Start })
}

func (l *Ledger) change(now time.Time, name string, do func(*entry, *period)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[name]
	if _, planned := l.plans[name]; e == nil && !planned {
		return ErrUnknown
	}
	if e == nil {
		e = new(entry)
		l.put(name, e)
	}
	do(e, e.settle(now, l.plan(name).BillingDay))
	return nil
}
