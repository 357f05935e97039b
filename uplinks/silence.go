package uplinks

import "time"

const (
	// silentFor is how long an uplink that was busy may receive nothing at all: longer than most pauses of one download, and
	// than the round trips of all but satellites.
	silentFor = 350 * time.Millisecond
	// livelyFor is how recently the uplink must have received something when it fell silent while we go on to send.
	livelyFor = 3 * time.Second
	// mostGap is the longest time between readings that still tell what happened in between.
	mostGap = time.Second
	// noiseBytes received between two readings are neighbour discovery, which the provider's own device answers.
	noiseBytes = 100
	// busyBytes received in each of busyReadings in a row are traffic whose end is worth a question.
	busyBytes    = 4 << 10
	busyReadings = 4
	// mostBusy of them are counted, less those since with fewer than stragglerBytes, so that two stragglers do not hide that traffic
	// has ended.
	mostBusy       = busyReadings + 2
	stragglerBytes = 512
	// talkReadings of a silence must have had something sent for it to be one of remotes that should answer.
	talkReadings = 2

	pauseFirst     = 2 * time.Second // after a silence that meant nothing, longer each time
	pauseLongest   = time.Minute
	pauseForgotten = 10 * time.Minute
)

// Silence notices when an uplink that carried traffic receives nothing any more: while we go on to send, or all at once. Both may
// have a harmless reason, as a download that has ended, so this is a reason to ask, and to ask less often after it meant
// nothing. The zero value has seen nothing; it is not safe for concurrent use.
type Silence struct {
	last  Counters
	at    time.Time // of the last reading
	heard time.Time // when something was received last; zero for never
	busy  int       // readings with traffic, less those with little, as of then
	talks int       // readings since then in which something was sent
	asked bool      // about this silence

	pause time.Duration
	next  time.Time // no question before
}

// Observe takes a reading of an uplink's totals, some 125 ms after the one before while there is traffic, and reports whether the uplink has fallen
// silent.
func (s *Silence) Observe(now time.Time, c Counters) bool {
	gap := now.Sub(s.at)
	rx, tx := c.RxBytes-s.last.RxBytes, c.TxBytes-s.last.TxBytes
	known := !s.at.IsZero() && gap <= mostGap && c.RxBytes >= s.last.RxBytes && c.TxBytes >= s.last.TxBytes
	s.last, s.at = c, now
	switch {
	case !known: // the first reading, a new device, or a machine that stood still
		s.heard, s.busy, s.talks, s.asked = time.Time{}, 0, 0, false
		return false
	case rx > noiseBytes:
		if !s.straggles(rx) {
			s.hear(now, rx)
			return false
		}
	case tx > 0:
		s.talks++
	}
	if s.asked || s.heard.IsZero() || now.Sub(s.heard) < silentFor || now.Before(s.next) {
		return false
	}
	s.asked = s.busy >= busyReadings || s.talks >= talkReadings && now.Sub(s.heard) < livelyFor
	return s.asked
}

// straggles reports whether so few bytes came after traffic that they do not continue it; of many such the later ones do.
func (s *Silence) straggles(bytes uint64) bool {
	if bytes >= stragglerBytes || s.busy < busyReadings {
		return false
	}
	s.busy--
	return true
}

// hear notes that something was received. What was asked about meant nothing, or is over.
func (s *Silence) hear(now time.Time, bytes uint64) {
	if s.asked {
		if now.Sub(s.next) > pauseForgotten {
			s.pause = 0
		}
		s.pause = min(max(2*s.pause, pauseFirst), pauseLongest)
		s.next = now.Add(s.pause)
	}
	if s.asked || now.Sub(s.heard) >= silentFor {
		s.busy = 0
	}
	if bytes >= busyBytes {
		s.busy = min(s.busy+1, mostBusy)
	} else {
		s.busy = max(s.busy-1, 0)
	}
	s.heard, s.talks, s.asked = now, 0, false
}
