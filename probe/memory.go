package probe

import (
	"errors"
	"math/bits"
	"slices"
	"time"
)

const (
	// shortestWait for an answer: less is within what a busy machine or a radio link adds now and then.
	shortestWait = 100 * time.Millisecond
	// leastSpread is added to the usual round trip at least.
	leastSpread = 20 * time.Millisecond
	// fates are how many probes of a target loss is computed from.
	fates = 64
	// deaf is a target that has not answered so many probes in a row.
	deaf = 5
)

// memory is what is known of a target.
type memory struct {
	heard   time.Time     // its latest reply
	waits   time.Time     // the first probe since that was not answered, zero when all were
	rtt     time.Duration // smoothed; 0 until it answered
	spread  time.Duration // of it (RFC 6298)
	lost    uint64        // bit per probe, the latest lowest
	counted int           // valid bits of lost
	missed  int           // probes in a row

	pending time.Time   // the latest probe, zero when that has ended
	wrong   *WrongError // the latest answer was
	wrongs  int         // in a row
}

func (m *memory) ask(now time.Time) {
	if m.waits.IsZero() {
		m.waits = now
	}
	m.pending = now
}

// hear takes an answer that is right.
func (m *memory) hear(now time.Time) {
	m.heard, m.waits, m.pending, m.missed = now, time.Time{}, time.Time{}, 0
	m.wrong, m.wrongs = nil, 0
}

// fail takes an answer that is none, or wrong.
func (m *memory) fail(err error) {
	m.pending = time.Time{}
	if wrong := (*WrongError)(nil); errors.As(err, &wrong) {
		m.wrong, m.wrongs = wrong, m.wrongs+1
	}
}

// measure takes a round-trip time, as TCP does (RFC 6298 §2).
func (m *memory) measure(rtt time.Duration) {
	if m.rtt == 0 {
		m.rtt, m.spread = rtt, rtt/2
		return
	}
	m.spread += ((rtt - m.rtt).Abs() - m.spread) / 4
	m.rtt += (rtt - m.rtt) / 4
}

// silent reports whether it owes an answer for longer than usual.
func (m *memory) silent(now time.Time) bool { return !m.waits.IsZero() && now.Sub(m.waits) >= m.late() }

// count takes the fate of a probe.
func (m *memory) count(lost bool) {
	m.lost <<= 1
	m.missed++
	if lost {
		m.lost |= 1
	} else {
		m.missed = 0
	}
	m.counted = min(m.counted+1, fates)
}

// loss is 0 to 1. As long as little is counted it is thought to go on well, or the very first packet would tell too much.
func (m *memory) loss() float64 {
	return m.lostShare() * float64(m.counted) / float64(max(m.counted, fates/2))
}

// lostShare is 0 to 1 of what is counted, however little that is.
func (m *memory) lostShare() float64 {
	return float64(bits.OnesCount64(m.lost<<(fates-m.counted))) / float64(max(m.counted, 1))
}

// late is when an answer is later than usual.
func (m *memory) late() time.Duration {
	return max(m.rtt+max(4*m.spread, m.rtt/4, leastSpread), shortestWait)
}

// tally counts the rounds whose Timeout is over by the targets that they asked.
func (j *Judge) tally(now time.Time) {
	for ; j.tallied < j.begun; j.tallied++ {
		r := j.round(j.tallied)
		if r == nil || r.number < j.rose {
			continue
		}
		over := r.start.Add(j.plan.Timeout)
		if now.Before(over) {
			return
		}
		if r.void || now.Sub(over) > j.plan.Interval+j.plan.Timeout { // nobody was there to see an answer
			continue
		}
		for set := r.asked; set != 0; set &= set - 1 {
			i := bits.TrailingZeros16(set)
			lost := r.answered&(1<<i) == 0
			j.targets[i].count(lost)
			if j.calm&(1<<i) != 0 {
				j.weigh(lost)
			}
			if lost {
				j.confirm(now, i)
			}
		}
	}
}

// choose returns the targets of a round that begins: everybody, also now and then while all is well, else as many of those that
// answer as must, with preference for those that cost and take the least. Content costs more, and is asked for less often.
func (j *Judge) choose(now time.Time, all bool) (mask uint16) {
	switch census := j.plan.Checks > 0 && !now.Before(j.censusAt); {
	case all || census:
		mask, j.censusAt = j.everybody, now.Add(j.plan.Checks)
	default:
		mask = j.few(now)
		j.calm = mask
	}
	if content := ^j.everybody & (1<<len(j.targets) - 1); content != 0 && !now.Before(j.contentAt) {
		mask, j.contentAt = mask|content, now.Add(j.plan.content(j.portal() != ""))
	}
	return mask
}

// few are as many targets as must answer.
func (j *Judge) few(now time.Time) (mask uint16) {
	var order []int
	for set := j.everybody; set != 0; set &= set - 1 {
		order = append(order, bits.TrailingZeros16(set))
	}
	slices.SortStableFunc(order, func(a, b int) int { return j.rank(now, a).compare(j.rank(now, b)) })
	for _, i := range order[:j.plan.Quorum] {
		mask |= 1 << i
	}
	return mask
}

// rank says how late in a round a target is asked.
type rank struct {
	gateway, silent bool
	cost            int
	rtt             time.Duration
}

func (j *Judge) rank(now time.Time, target int) rank {
	m, kind := &j.targets[target], j.plan.Targets[target].Kind
	r := rank{kind.gateway(), m.silent(now), kind.cost(), m.rtt}
	if j.calm&(1<<target) != 0 {
		r.rtt -= r.rtt / 4 // one that is a little faster is not worth another round-trip time in the statistics
	}
	return r
}

func (r rank) compare(other rank) int {
	if r.gateway != other.gateway {
		return worse(r.gateway)
	}
	if r.silent != other.silent {
		return worse(r.silent)
	}
	if r.cost != other.cost {
		return r.cost - other.cost
	}
	return int(r.rtt - other.rtt)
}

func worse(first bool) int {
	if first {
		return 1
	}
	return -1
}

// wait is how long a round waits: Timeout, but while all is well only until answers are later than usual. Of those who are
// asked together a second one may still answer.
func (j *Judge) wait(r *round) time.Duration {
	if !j.usable {
		return j.plan.Timeout
	}
	var waits []time.Duration
	usual := time.Duration(0)
	for set := r.asked; set != 0; set &= set - 1 {
		i := bits.TrailingZeros16(set)
		m := &j.targets[i]
		if m.rtt == 0 || m.missed >= deaf && j.calm&(1<<i) == 0 {
			continue
		}
		waits = append(waits, m.late())
		if j.calm&(1<<i) != 0 {
			usual = max(usual, m.late())
		}
	}
	if len(waits) == 0 {
		return j.plan.Timeout
	}
	slices.Sort(waits)
	longest := max(usual, waits[min(1, len(waits)-1)])
	longest <<= min(j.slack, 4)
	return min(longest, max(j.plan.Timeout, usual), patience*j.plan.Timeout)
}

// rtt is the shortest round trip to those who are asked while all is well.
func (j *Judge) rtt() (shortest time.Duration) {
	for i := range j.targets {
		m := &j.targets[i]
		if m.rtt > 0 && (j.calm == 0 || j.calm&(1<<i) != 0) && (shortest == 0 || m.rtt < shortest) {
			shortest = m.rtt
		}
	}
	return shortest
}

// loss is that of the target which answers best of those asked while all is well: another one may be dead or limit its answers,
// the path is no better than the best.
func (j *Judge) loss() float64 { return j.least((*memory).loss) }

func (j *Judge) least(loss func(*memory) float64) float64 {
	least := 1.0
	for i := range j.targets {
		if m := &j.targets[i]; m.counted > 0 && (j.calm == 0 || j.calm&(1<<i) != 0) {
			least = min(least, loss(m))
		} else if j.calm&(1<<i) != 0 {
			return 0 // nothing is known of it
		}
	}
	if j.begun == 0 {
		return 0
	}
	return least
}
