package tapgw

import (
	"slices"
	"time"

	"tapgw/internal/packet"
)

const (
	maxMisses   = 8               // remembered of an uplink
	missedFor   = 3 * time.Second // … for so long
	quietMisses = 2               // unanswered in a row, while the uplink receives nothing at all, that make it suspect
	sureMisses  = 4               // … although a suspicion was wrong lately
	deafMisses  = 6               // … while it receives other things

	suspectFor     = 3 * time.Second // until it is tried again, longer each time
	suspectLongest = 48 * time.Second
	holdFirst      = 2 * time.Second // after a suspicion that was wrong there is none for so long, longer each time
	holdLongest    = time.Minute
	holdForgotten  = 10 * time.Minute
)

// miss is a first packet that was not answered in time.
type miss struct {
	remote    packet.Addr
	sent      time.Duration
	syn       bool // of TCP
	quiet     bool // the uplink has received nothing since
	confirmed bool // the remote has answered by another uplink
}

// evidence is what first packets say about one uplink.
type evidence struct {
	handshakes
	misses   [maxMisses]miss // since the last answer, the oldest first
	n        int
	answered time.Duration // when it last did answer, 0 for never

	suspect    bool
	since      time.Duration // of the suspicion
	until      time.Duration // when it is tried again
	lasts      time.Duration // how long the latest suspicion was to last
	quiet      bool          // the suspicion rests on that nothing at all was received
	heldUntil  time.Duration // no suspicion before
	hold       time.Duration
	falseAlarm time.Duration // when the last one was
}

// hear notes that a first packet by the uplink was answered, one of TCP or not, and reports whether that ended a suspicion. Where
// all but TCP is answered, TCP alone may be what is dead.
func (e *evidence) hear(now time.Duration, syn bool) (cleared bool) {
	e.answered = now
	left := 0
	for _, m := range e.misses[:e.n] {
		if m.syn && !syn {
			m.quiet = false
			e.misses[left] = m
			left++
		}
	}
	e.n = left
	if e.n > 0 && !(e.suspect && e.quiet) {
		return false
	}
	e.lasts = 0
	if !e.suspect {
		return false
	}
	e.acquit(now)
	return true
}

// acquit ends a suspicion that was wrong.
func (e *evidence) acquit(now time.Duration) {
	if now-e.falseAlarm > holdForgotten {
		e.hold = 0
	}
	e.hold = min(max(2*e.hold, holdFirst), holdLongest)
	e.suspect, e.n, e.lasts, e.falseAlarm, e.heldUntil = false, 0, 0, now, now+e.hold
}

// convict ends a suspicion that others have found to be true.
func (e *evidence) convict() { e.suspect, e.n, e.lasts, e.hold = false, 0, 0, 0 }

// missed notes a packet that was not answered in time.
func (e *evidence) missed(m miss, now time.Duration) {
	e.forget(now)
	if e.n == maxMisses {
		copy(e.misses[:], e.misses[1:])
		e.n--
	}
	e.misses[e.n] = m
	e.n++
}

// forget drops misses of long ago.
func (e *evidence) forget(now time.Duration) {
	for e.n > 0 && now-e.misses[0].sent > missedFor {
		copy(e.misses[:], e.misses[1:e.n])
		e.n--
	}
}

// confirm notes that a remote which was missed has answered by another uplink.
func (e *evidence) confirm(remote packet.Addr) {
	for i := range e.misses[:e.n] {
		if e.misses[i].remote == remote {
			e.misses[i].confirmed = true
		}
	}
}

// damning returns the misses that make the uplink suspect, none if they do not: the latest in its silence, else all. One remote
// alone may be what is dead, unless it answers by another uplink.
func (e *evidence) damning(now time.Duration) (misses []miss, quiet bool) {
	e.forget(now)
	first := e.n
	for first > 0 && e.misses[first-1].quiet {
		first--
	}
	if run := e.misses[first:e.n]; len(run) >= quietMisses && areSeveral(run) {
		return run, true
	}
	if all := e.misses[:e.n]; len(all) >= deafMisses && areSeveral(all) {
		return all, false
	}
	return nil, false
}

// areSeveral reports whether misses are of several remotes, or of one that answers by another uplink.
func areSeveral(misses []miss) bool {
	return slices.ContainsFunc(misses, func(m miss) bool { return m.confirmed || m.remote != misses[0].remote })
}

// accuse begins a suspicion on so many misses. After one that was wrong it takes more for a while.
func (e *evidence) accuse(now time.Duration, misses int, quiet bool) bool {
	if e.suspect || now < e.heldUntil && (!quiet || misses < sureMisses) {
		return false
	}
	e.lasts = min(max(2*e.lasts, suspectFor), suspectLongest)
	e.suspect, e.quiet, e.since, e.until = true, quiet, now, now+e.lasts
	return true
}

// review ends a suspicion that has lasted long enough, or that what was heard since refutes.
func (e *evidence) review(now, heard time.Duration) {
	switch {
	case !e.suspect:
	case e.quiet && heard >= e.since:
		e.acquit(now)
	case now >= e.until:
		e.suspect, e.n = false, 0
	}
}
