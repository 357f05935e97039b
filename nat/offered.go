package nat

import (
	"time"

	"tapgw/internal/packet"
)

// A flood from many addresses to a mapped port must not fill the table: of the sessions that remotes opened and the inside
// has not answered there may be a share of all, of one mapping a share of that, and they end soon.
const (
	offerTime   = 10 * time.Second
	offerShare  = 8   // of all records
	offerSpread = 4   // mappings that together may have that share
	offerMost   = 250 // of one mapping, which counts them in a byte
)

func (t *Table) maxOffered() int   { return max(1, t.cfg.MaxSessions/offerShare) }
func (t *Table) maxOfferedTo() int { return min(offerMost, max(1, t.maxOffered()/offerSpread)) }

// peers tells which addresses a mapping has sent to. The session in mapping.first is not in counts, and mostly it is the only
// one; sessions that are offered are in none.
type peers struct {
	offered int // sessions of all mappings
	follows [2]bool
	counts  map[peerKey]uint32 // sessions, of the protocols of Filtering that follows says
}

type peerKey struct {
	remote  packet.Addr
	mapping uint32
}

// hold notes what a new session means for its mapping.
func (t *Table) hold(r, m uint32, s State) {
	mp := t.mapping(m)
	switch {
	case s == Offered:
		mp.offered++
		t.peers.offered++
	case mp.first == 0:
		mp.first = r
	case t.followsPeers(mp.proto):
		t.peers.counts[peerKey{t.remote(r), m}]++
	}
}

// unhold undoes hold for a session that ends in a state.
func (t *Table) unhold(r, m uint32, s State) {
	mp := t.mapping(m)
	switch {
	case s == Offered:
		mp.offered--
		t.peers.offered--
	case mp.first == r:
		mp.first = 0
	case t.followsPeers(mp.proto):
		p := peerKey{t.remote(r), m}
		if t.peers.counts[p]--; t.peers.counts[p] == 0 {
			delete(t.peers.counts, p)
		}
	}
}

// remote is the address that a session is with.
func (t *Table) remote(r uint32) packet.Addr {
	_, remote, _ := t.addresses(r)
	return remote
}

// inside is the host that a session belongs to.
func (t *Table) inside(r uint32) packet.Addr {
	inside, _, _ := t.addresses(r)
	return inside
}

func (t *Table) followsPeers(proto uint8) bool {
	n, ok := filtered(proto)
	return ok && t.peers.follows[n]
}

// spoke reports whether the inside endpoint of mapping n has a session of its own with an address.
func (t *Table) spoke(n uint32, remote packet.Addr) bool {
	first := t.mapping(n).first
	return first != 0 && t.remote(first) == remote || t.peers.counts[peerKey{remote, n}] > 0
}

// countPeers makes counts anew.
func (t *Table) countPeers() {
	t.peers.counts = make(map[peerKey]uint32)
	for r := uint32(1); r <= t.used.Load(); r++ {
		id := &t.records[r]
		own := id.own.Load()
		m, s := ownLink(own), ownState(own)
		if s.Live() && s != Offered && t.mapping(m).first != r && t.followsPeers(uint8(id.ports.Load()>>8)) {
			t.peers.counts[peerKey{t.remote(r), m}]++
		}
	}
}

// unanswered reports whether a session is offered and remains so with this packet. Only what the inside sends answers it, and
// a RST says no (RFC 7857 §7).
func (t *Table) unanswered(r Ref, p *packet.Packet, d direction) bool {
	switch s := ownState(t.records[r].own.Load()); {
	case s == Unanswered && d == inbound:
		t.Trust(r)
		return false
	case s != Offered:
		return false
	}
	if d == inbound && p.Kind == packet.TCP {
		t.counts[inbound][r].sequence(p)
	}
	return d == inbound || p.Kind == packet.TCP && p.TCPFlags&packet.RST != 0 || !t.answered(uint32(r))
}

// answered makes an offered session one like any other; false when it has ended.
func (t *Table) answered(r uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := &t.records[r]
	word, s := id.own.Load(), firstState(uint8(id.ports.Load()>>8))
	switch ownState(word) {
	case Offered:
	case None, Ended:
		return false
	default:
		return true
	}
	id.own.Store(word&^ownStateMask | uint64(s))
	t.unhold(r, ownLink(word), Offered)
	t.hold(r, ownLink(word), s)
	t.charge(t.inside(r), 1, 0)
	return true
}
