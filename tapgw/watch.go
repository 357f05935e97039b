package tapgw

import (
	"sync"
	"sync/atomic"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// First packets of sessions, which are always Go's, are watched until they are answered: an uplink whose remotes are silent
// while others' answer is found out before any probe, and what it left unanswered goes by another.

const (
	maxPending = 2048 // first packets that are watched, by the number of their session: another of the same slot is not
	maxSYN     = packet.VnetLen + packet.EthernetLen + 40 + 60
	maxDue     = 64                     // of what is done in one call of Overdue
	lastWait   = 450 * time.Millisecond // after which a first packet is overdue whatever else the uplink receives
	watchedFor = 2 * lastWait
	mostMoves  = 2 // of one session, after which it is left to the client

	// Moves that did not help use up a stock, so that who scans dead addresses does not do so by all uplinks.
	moveStock  = 64
	moveRefill = 4 // per second
)

// first is what the first packet of a session is.
type first uint8

const (
	firstOther first = iota // of UDP that may want no answer
	firstSYN
	firstQuery // of DNS
	firstQUIC  // long header, version not 0 (RFC 9000 §17.2)
)

// pending is a first packet that has not been answered.
type pending struct {
	key    nat.Key
	ref    nat.Ref // 0 for none
	tried  uint32  // uplinks, one bit each
	sent   time.Duration
	uplink uint8
	before uint8 // uplink that it was sent by in vain, where moves > 0
	moves  uint8
	length uint8 // of the copy of a SYN that can be sent again, 0 for none
	kind   first
	again  bool // how long the answer takes cannot be told: the client has sent it again, or nobody saw it come
	missed bool // it is evidence
	judged bool // nothing is done about it any more
}

// WatchEvent is something that was done about unanswered sessions; each has a counter.
type WatchEvent uint8

// The events.
const (
	Moved      WatchEvent = iota // sessions bound to another uplink, as nothing came back
	Rescued                      // … that were answered there
	LateReset                    // connections reset towards remotes that answered later
	Suspected                    // suspicions of uplinks
	Overlooked                   // first packets that were not watched, as too many were
	numWatchEvents
)

var watchEventText = [numWatchEvents]string{"moved", "rescued", "late_reset", "suspected", "overlooked"}

// String is the label of metrics.
func (e WatchEvent) String() string { return watchEventText[e] }

// watch is all that is known of first packets of one family. Its lock is held for no longer than it takes to look at each.
type watch struct {
	wake       func()
	isAnswered func(nat.Ref) bool
	suspects   atomic.Uint32 // uplinks, one bit each
	counts     [numWatchEvents]atomic.Uint64

	mu       sync.Mutex
	awake    bool // somebody will call Overdue
	n        int
	slots    [maxPending]pending
	syns     [maxPending][maxSYN]byte
	sides    [uplinks.MaxUplinks]evidence
	slow     slowness
	moved    moved
	stock    float64
	stocked  time.Duration
	due      [maxDue]pending // of Overdue, which nobody calls twice at a time
	dueCount int
	doubts   uint32       // uplinks, a bit each
	copy     [maxSYN]byte // of Overdue as well
}

func (w *watch) count(e WatchEvent) { w.counts[e].Add(1) }

// isSuspect reports whether new sessions had better avoid an uplink.
func (w *watch) isSuspect(uplink uint8) bool { return w.suspects.Load()&(1<<uplink) != 0 }

// IsSuspect reports whether new sessions avoid an uplink, as remotes do not answer by it.
func (g *Gateway) IsSuspect(uplink uint8) bool { return g.watch.isSuspect(uplink) }

// kindOf tells what the first packet of a session is; false for one that nobody is to wait for.
func kindOf(frame []byte, p *packet.Packet) (first, bool) {
	const quicPort, dnsPort = 443, 53
	switch p.Kind {
	case packet.TCP:
		return firstSYN, opens(p)
	case packet.UDP:
		payload := frame[int(p.L4)+udpHeader : int(p.L3)+int(p.Len)]
		switch {
		case p.DstPort == dnsPort:
			return firstQuery, true
		case p.DstPort == quicPort && isQUIC(payload):
			return firstQUIC, true
		}
		return firstOther, true
	}
	return firstOther, false
}

// isQUIC reports whether a datagram begins with a long header of QUIC (RFC 8999 §5.1).
func isQUIC(b []byte) bool {
	const long, length = 0x80, 7
	return len(b) >= length && b[0]&long != 0 && b[1]|b[2]|b[3]|b[4] != 0
}

// isWhole reports whether a SYN can be sent again: one with data is left to the client, which knows what to do with them.
func isWhole(b []byte, p *packet.Packet) bool {
	return p.SeqEnd-p.Seq == 1 && !p.Options && len(b) <= maxSYN && packet.VnetHeader(b).GSOType() == packet.GSONone
}

// begin watches a first packet; b is its buffer before translation.
func (w *watch) begin(b []byte, e pending) {
	w.mu.Lock()
	s := &w.slots[e.ref%maxPending]
	if s.ref != 0 && s.ref != e.ref {
		if !w.isAnswered(s.ref) {
			w.mu.Unlock()
			w.count(Overlooked)
			return
		}
		w.endUnseen(s, e.sent)
	}
	if s.ref == 0 {
		w.n++
	}
	*s = e
	copy(w.syns[e.ref%maxPending][:], b[:e.length])
	asleep := !w.awake
	w.awake = true
	w.mu.Unlock()
	if asleep {
		w.wake()
	}
}

// repeated notes that the client has sent a SYN again, so that an answer does not tell how long it took (RFC 6298 §3).
func (w *watch) repeated(ref nat.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := &w.slots[ref%maxPending]; s.ref == ref {
		s.again = true
	}
}

// answered notes that a remote has answered a SYN by an uplink.
func (w *watch) answered(ref nat.Ref, uplink uint8, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := &w.slots[ref%maxPending]; s.ref == ref {
		w.end(s, now)
		return
	}
	w.hear(uplink, now, true)
}

// endUnseen is end for an answer that the kernel carried: it came earlier than now.
func (w *watch) endUnseen(s *pending, now time.Duration) {
	s.again = true
	w.end(s, now)
}

// end takes an answered first packet from the list.
func (w *watch) end(s *pending, now time.Duration) {
	if s.kind == firstSYN && !s.again {
		w.sides[s.uplink].add(now - s.sent)
	}
	if s.moves > 0 {
		w.sides[s.before].confirm(s.key.Remote)
		w.stock = min(w.stock+1, moveStock)
		w.count(Rescued)
	}
	if s.kind != firstOther || s.missed {
		w.hear(s.uplink, now, s.kind == firstSYN)
	}
	w.drop(s)
}

func (w *watch) drop(s *pending) {
	s.ref = 0
	w.n--
}

// hear notes an answer by an uplink.
func (w *watch) hear(uplink uint8, now time.Duration, syn bool) {
	if w.sides[uplink].hear(now, syn) {
		w.publish()
	}
}

// publish shows the packet path which uplinks are suspect.
func (w *watch) publish() {
	var set uint32
	for id := range w.sides {
		if w.sides[id].suspect {
			set |= 1 << id
		}
	}
	w.suspects.Store(set)
}

// answeredLate notes the answer to a SYN of a session that has moved, and reports whether it was one.
func (w *watch) answeredLate(k nat.InKey, now time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent, ok := w.moved.find(k, now)
	if !ok {
		return false
	}
	w.sides[k.Uplink].add(now - sent)
	w.slow.answeredLate(k.Remote, now-sent, now)
	w.hear(k.Uplink, now, true)
	return true
}

// leaves notes that the session of a SYN is about to move.
func (w *watch) leaves(k nat.InKey, sent, now time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved.note(k, sent, now)
}

// afford takes a move from the stock.
func (w *watch) afford(now time.Duration) bool {
	w.stock = min(w.stock+moveRefill*(now-w.stocked).Seconds(), moveStock)
	w.stocked = now
	if w.stock < 1 {
		return false
	}
	w.stock--
	return true
}
