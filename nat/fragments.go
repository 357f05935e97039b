package nat

import (
	"bytes"
	"cmp"
	"container/list"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tapgw/internal/packet"
)

// FragmentKey names a datagram that comes in pieces (RFC 791 §2.3).
type FragmentKey struct {
	Src, Dst packet.Addr
	ID       uint32
	Proto    uint8
}

// Bounds of Fragments. A datagram of the largest size has 45 pieces at an MTU of 1500.
const (
	maxFates        = 4096      // datagrams whose fate is remembered
	maxCollected    = 64        // datagrams whose first fragment has not come
	maxPieces       = 48        // held of one datagram
	maxHeld         = 256 << 10 // bytes held of all
	fragmentTimeout = 2 * time.Second
)

// Fragments remembers for each datagram in pieces what its first fragment decided, a fate of the caller's type F, and
// holds pieces that come before their first (RFC 4787 REQ-14). Everything is bounded and forgotten after two seconds,
// counted from the first piece seen. All methods may be called from any goroutine.
type Fragments[F any] struct {
	lost *atomic.Uint64

	mu        sync.Mutex
	datagrams map[FragmentKey]*list.Element // of *fragmented[F], in one of the lists
	collected list.List                     // without fate; oldest first, as all lists
	decided   list.List
	held      int // bytes
}

// fragmented is what is known of one datagram.
type fragmented[F any] struct {
	key    FragmentKey
	since  Tick
	fate   F
	known  bool // fate is
	pieces []piece
}

// piece is a fragment that waits for its first.
type piece struct {
	offset int
	frame  []byte
}

// NewFragments returns an empty memory that adds to lost each fragment given up because its first never came, or too many
// were waiting.
func NewFragments[F any](lost *atomic.Uint64) *Fragments[F] {
	return &Fragments[F]{lost: lost, datagrams: make(map[FragmentKey]*list.Element)}
}

// Decide remembers the fate of a datagram and returns copies of the fragments that came before their first, in the order
// of their offsets. They belong to the caller.
func (f *Fragments[F]) Decide(k FragmentKey, fate F, now Tick) [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(now)
	frames := f.forget(f.datagrams[k])
	if f.decided.Len() >= maxFates {
		f.forget(f.decided.Front())
	}
	f.datagrams[k] = f.decided.PushBack(&fragmented[F]{key: k, since: now, fate: fate, known: true})
	return frames
}

// Follow returns the fate of a later fragment's datagram. When it is not known yet, it keeps a copy of the frame, or counts it
// as lost, and returns false. A copy of a piece already held is ignored.
func (f *Fragments[F]) Follow(k FragmentKey, offset int, frame []byte, now Tick) (fate F, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(now)
	e := f.datagrams[k]
	if e == nil {
		if f.collected.Len() >= maxCollected {
			f.giveUp(f.collected.Front())
		}
		e = f.collected.PushBack(&fragmented[F]{key: k, since: now})
		f.datagrams[k] = e
	}
	d := e.Value.(*fragmented[F])
	if !d.known {
		f.hold(d, offset, frame)
	}
	return d.fate, d.known
}

// hold keeps a copy of a frame with its datagram, where there is room.
func (f *Fragments[F]) hold(d *fragmented[F], offset int, frame []byte) {
	at, twice := slices.BinarySearchFunc(d.pieces, offset, func(p piece, offset int) int { return cmp.Compare(p.offset, offset) })
	switch {
	case twice:
	case len(d.pieces) >= maxPieces, f.held+len(frame) > maxHeld:
		f.lost.Add(1)
	default:
		d.pieces = slices.Insert(d.pieces, at, piece{offset, bytes.Clone(frame)})
		f.held += len(frame)
	}
}

// expire forgets what is too old.
func (f *Fragments[F]) expire(now Tick) {
	for _, l := range []*list.List{&f.collected, &f.decided} {
		for e := l.Front(); e != nil && e.Value.(*fragmented[F]).since.Since(now) > fragmentTimeout; e = l.Front() {
			f.giveUp(e)
		}
	}
}

// giveUp forgets a datagram and counts the pieces it held.
func (f *Fragments[F]) giveUp(e *list.Element) { f.lost.Add(uint64(len(f.forget(e)))) }

// forget removes a datagram, if it is there, and returns the frames it held.
func (f *Fragments[F]) forget(e *list.Element) (frames [][]byte) {
	if e == nil {
		return nil
	}
	d := e.Value.(*fragmented[F])
	from := &f.collected
	if d.known {
		from = &f.decided
	}
	from.Remove(e)
	delete(f.datagrams, d.key)
	for _, p := range d.pieces {
		frames = append(frames, p.frame)
		f.held -= len(p.frame)
	}
	return frames
}

// SpreadID changes the identification of a fragment that leaves for the inside host: by an amount of that host's own, so that
// two hosts that count alike do not use the same one behind one address (RFC 6864 §5.3). All pieces of a datagram
// change alike.
func (t *Table) SpreadID(frame []byte, p *packet.Packet, inside packet.Addr) {
	amount := siphash(t.cfg.Seed, inside.Hi, inside.Lo)
	if p.IPv6 {
		id := frame[p.Frag+fragmentIDAt:]
		binary.BigEndian.PutUint32(id, binary.BigEndian.Uint32(id)+uint32(amount))
		return
	}
	at := int(p.L3) + idAt
	old := binary.BigEndian.Uint16(frame[at:])
	id := old + uint16(amount)
	var d packet.Delta
	d.Replace16(old, id)
	binary.BigEndian.PutUint16(frame[at:], id)
	fix(frame, int(p.L3)+ipSumAt, d)
}

// Offsets of the identification in the IPv4 header, and in the Fragment header of IPv6 (RFC 8200 §4.5).
const (
	idAt         = 4
	fragmentIDAt = 4
)
