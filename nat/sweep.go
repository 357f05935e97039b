package nat

import (
	"slices"
	"time"

	"tapgw/internal/packet"
)

const (
	quarantineTime   = time.Second // a deleted record is not reused before
	quarantineSweeps = 2           // nor before that many further sweeps
)

// queue is a list of records linked by their own words.
type queue struct {
	head, tail uint32
	length     int
}

// Sweep ends the sessions that outlived their lifetime, frees the records that have been deleted long enough, and the
// ports that have rested. It looks at budget records, going on where the last call stopped; 0 is the whole table.
func (t *Table) Sweep(now Tick, budget int) {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	used := t.used.Load()
	if budget <= 0 || budget > int(used) {
		budget = int(used)
	}
	t.reclaim(now, max(budget, 64))
	for range budget {
		if t.cursor++; t.cursor > used {
			t.cursor = 1
		}
		if t.current(t.cursor).Live() && t.expired(t.cursor, t.lastSeen(t.cursor), now) {
			t.retire(t.cursor, now)
		}
	}
}

// retire ends an expired session, unless a packet was forwarded on it while it was being deleted.
func (t *Table) retire(r uint32, now Tick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.lastSeen(r) // before it is judged, so that a packet after the judgement is noticed
	if !t.current(r).Live() || !t.expired(r, seen, now) {
		return
	}
	t.conclude(r, t.hide(r), seen, now)
}

// End ends the session of k, if there is one.
func (t *Table) End(k Key, now Tick) {
	if t.FindOut(k) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := uint32(t.FindOut(k)); r != 0 {
		t.hide(r)
		t.finish(r, now, abandoned)
	}
}

// conclude finishes a hidden session, or shows it again when it was refreshed after seen.
func (t *Table) conclude(r uint32, s slots, seen, now Tick) {
	if t.lastSeen(r) != seen {
		t.show(r, s)
		return
	}
	t.finish(r, now, abandoned)
}

// slots are where a record was published.
type slots struct {
	outHash, inHash uint64
	out, in         int
	hadOut          bool
}

// hide takes a session out of the indexes, outbound first. A re-bound session's outbound slot is another's already.
func (t *Table) hide(r uint32) (s slots) {
	s.outHash, s.inHash = t.outHash(r), t.inHash(r)
	if s.out, s.hadOut = t.out.slotOf(s.outHash, r); s.hadOut {
		t.out.words[s.out].Store(0)
	}
	s.in, _ = t.in.slotOf(s.inHash, r)
	t.in.words[s.in].Store(0)
	return s
}

// show undoes hide.
func (t *Table) show(r uint32, s slots) {
	t.in.words[s.in].Store(indexWord(s.inHash, r))
	if s.hadOut {
		t.out.words[s.out].Store(indexWord(s.outHash, r))
	}
}

// finish gives up a hidden session's share of its mapping, whose port it leaves at worst so.
func (t *Table) finish(r uint32, now Tick, worst ending) {
	word := t.bury(r, now)
	t.unhold(r, ownLink(word), ownState(word))
	if ownState(word).finished() {
		worst = min(worst, closed)
	}
	t.leave(ownLink(word), worst, now)
	if ownState(word) != Offered {
		t.charge(t.inside(r), -1, 0)
	}
	ports := t.records[r].ports.Load()
	t.stats.closed(uint8(ports), uint8(ports>>8), t.counts[outbound][r].bytes.Load()&bytesMask, t.counts[inbound][r].bytes.Load()&bytesMask)
}

// bury puts a record into quarantine, as a reader that found it just before may still use it, and returns its last own word.
func (t *Table) bury(r uint32, now Tick) (word uint64) {
	own := &t.records[r].own
	for word = own.Load(); !own.CompareAndSwap(word, packOwn(Ended, uint8(t.sweeps), 0, now)); {
		word = own.Load()
	}
	q := &t.quarantine
	if q.length++; q.head == 0 {
		q.head, q.tail = r, r
		return word
	}
	last := &t.records[q.tail].own
	last.Store(last.Load() | uint64(r)<<ownLinkShift)
	q.tail = r
	return word
}

// reclaim frees up to max records of the quarantine, and the ports that have rested.
func (t *Table) reclaim(now Tick, limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweeps++
	q := &t.quarantine
	for ; q.head != 0 && limit > 0; limit-- {
		r := q.head
		word := t.records[r].own.Load()
		if ownSince(word, now) <= int32(ticks(quarantineTime)) || (uint8(t.sweeps)-ownReason(word))&ownReasonMask < quarantineSweeps {
			break
		}
		q.head, q.length = ownLink(word), q.length-1
		t.records[r].own.Store(packOwn(None, 0, t.freeHead, 0))
		t.freeHead = r
	}
	for u := range t.spaces {
		if list := t.spaces[u].Load(); list != nil {
			for _, s := range *list {
				s.wake(now)
			}
		}
	}
}

// Purge ends every session of the uplink made under another generation. What they used does not rest: the address it was
// on is gone.
func (t *Table) Purge(uplink uint8, generation uint32, now Tick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endOn(uplink, func(r uint32) bool { return t.records[r].generation() != generation }, now)
	t.dropSpaces(uplink, func(packet.Addr) bool { return true })
}

// Retain ends the sessions of the uplink, of whatever generation, at addresses that hosts shared there and that are none of these.
func (t *Table) Retain(uplink uint8, addresses []packet.Addr, now Tick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := func(outside packet.Addr) bool { return !slices.Contains(addresses, outside) }
	list := t.spaces[uplink].Load()
	if list == nil || !slices.ContainsFunc(*list, func(s *space) bool { return gone(s.outside) }) {
		return
	}
	t.endOn(uplink, func(r uint32) bool {
		return gone(t.translation(r).Outside) && !t.mapping(ownLink(t.records[r].own.Load())).computed
	}, now)
	t.dropSpaces(uplink, gone)
}

// endOn ends the sessions of an uplink that match.
func (t *Table) endOn(uplink uint8, match func(r uint32) bool, now Tick) {
	for r := uint32(1); r <= t.used.Load(); r++ {
		id := &t.records[r]
		if ownState(id.own.Load()).Live() && uint8(id.ports.Load()) == uplink && match(r) {
			t.hide(r)
			t.finish(r, now, unused)
		}
	}
}

// Relabel gives every live session the hop that its inside address has now, but those of bound sockets.
func (t *Table) Relabel(hop func(inside packet.Addr) uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := uint32(1); r <= t.used.Load(); r++ {
		id := &t.records[r]
		if !ownState(id.own.Load()).Live() {
			continue
		}
		outside := id.outside.Load()
		if uint8(outside>>hopShift) == HopDevice {
			continue
		}
		if now := outside&^hopMask | uint64(hop(t.inside(r)))<<hopShift; now != outside {
			id.outside.Store(now)
		}
	}
}

// SetHop gives a live session another hop.
func (t *Table) SetHop(r Ref, hop uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id := &t.records[r]; ownState(id.own.Load()).Live() {
		id.outside.Store(id.outside.Load()&^hopMask | uint64(hop)<<hopShift)
	}
}
