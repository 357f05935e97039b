// Package names knows by which name an address was asked for: it learns from DNS answers that pass (RFC 1035). Every message
// is hostile, so an answer counts only if the same session has asked that question just before, and memory is bounded.
// It is pure: time is an argument.
package names

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/publicsuffix"

	"tapgw/internal/packet"
)

// Bounds of a Book.
const (
	maxEntries   = 8192
	maxOfClient  = maxEntries / 2 // a resolver in the LAN asks for all others
	shares       = 16             // of the questions; a client's are in one of them
	shareSize    = 512
	ways         = 4                // places where one may be
	patience     = 15 * time.Second // with which a resolver waits for an answer
	shortestTime = time.Minute      // to live
	longestTime  = 24 * time.Hour
	// grace is how long after its time to live a name counts: programs keep addresses for longer than they should, and
	// resolvers answer from what has expired while they ask anew (RFC 8767).
	grace = 30 * time.Minute
)

// Session is the endpoints of a session with a server of names.
type Session struct {
	Client, Server         packet.Addr
	ClientPort, ServerPort uint16
}

// Book is what was learned of the addresses of both families. All methods may be called from several goroutines at once; the
// time now is of a clock that may wrap.
type Book struct {
	seed   maphash.Seed
	minute uint32 // of the clock

	mu    sync.RWMutex
	asked [shares * shareSize]asked
	known known
}

// asked is a question that waits for its answer.
type asked struct {
	sum uint64 // of session and question, 0 for none
	at  uint32
}

// New returns an empty book. A minute is that many units of the clock that tells now.
func New(minute uint32) *Book {
	return &Book{seed: maphash.MakeSeed(), minute: minute, known: newKnown(maxEntries, maxOfClient)}
}

// Query reads what a client sends to a server, and remembers what it asks.
func (b *Book) Query(s Session, payload []byte, now uint32) {
	var p dnsmessage.Parser
	q, ok := readQuestion(&p, payload, false)
	if !ok {
		return
	}
	sum, places := b.places(&s, &q)
	b.mu.Lock()
	defer b.mu.Unlock()
	to := &places[0]
	for i := range places {
		a := &places[i]
		if a.sum == sum {
			to = a
			break
		}
		if to.sum != 0 && (a.sum == 0 || int32(a.at-to.at) < 0) {
			to = a
		}
	}
	*to = asked{sum, now}
}

// take reports whether a question of this sum is waiting in one of the places; it does not any more then.
func (b *Book) take(places []asked, sum uint64, now uint32) bool {
	for i := range places {
		if a := &places[i]; a.sum == sum {
			inTime := int32(now-a.at) <= int32(b.units(patience))
			*a = asked{}
			return inTime
		}
	}
	return false
}

// Answer reads what a server sends to a client, and learns from it if the client has asked that.
func (b *Book) Answer(s Session, payload []byte, now uint32) {
	var p dnsmessage.Parser
	q, ok := readQuestion(&p, payload, true)
	if !ok {
		return
	}
	sum, places := b.places(&s, &q)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.take(places, sum, now) {
		return
	}
	var name name
	readAddresses(&p, func(f found) {
		if name.full == "" {
			name = nameOf(string(q.text()))
		}
		ttl := min(max(time.Duration(f.ttl)*time.Second, shortestTime), longestTime)
		b.known.learn(s.Client, packet.AddrOf(f.addr), name, now+b.units(ttl+grace))
	})
}

// Domain returns the name by which an address was asked for, in small letters and without a final dot: by this client the
// last time, else by whoever was the last. It allocates nothing.
func (b *Book) Domain(client, addr packet.Addr, now uint32) (name string, ok bool) {
	n, ok := b.find(client, addr, now)
	return n.full, ok
}

// Site returns of that name what its owner has registered (the public suffix and one label more): www.shop.example.co.uk
// and img.example.co.uk are both example.co.uk.
func (b *Book) Site(client, addr packet.Addr, now uint32) (site string, ok bool) {
	n, ok := b.find(client, addr, now)
	return n.full[n.site:], ok
}

func (b *Book) find(client, addr packet.Addr, now uint32) (name, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.known.find(client, addr, now)
}

// units is a duration on the clock.
func (b *Book) units(d time.Duration) uint32 {
	return uint32(uint64(d) * uint64(b.minute) / uint64(time.Minute))
}

// places returns a keyed hash of a question and who asks whom, and where it may be remembered: in the share of the client, so
// that none makes all others' forgotten.
func (b *Book) places(s *Session, q *question) (sum uint64, places []asked) {
	var text [4*8 + 2*2 + 2*2 + maxName]byte
	le := binary.LittleEndian
	m := le.AppendUint64(text[:0], s.Client.Hi)
	m = le.AppendUint64(m, s.Client.Lo)
	share := maphash.Bytes(b.seed, m) % shares
	m = le.AppendUint64(m, s.Server.Hi)
	m = le.AppendUint64(m, s.Server.Lo)
	m = le.AppendUint16(m, s.ClientPort)
	m = le.AppendUint16(m, s.ServerPort)
	m = le.AppendUint16(m, q.id)
	m = le.AppendUint16(m, uint16(q.kind))
	m = append(m, q.text()...)
	sum = maphash.Bytes(b.seed, m) | 1 // never none
	first := share*shareSize + sum>>1%(shareSize/ways)*ways
	return sum, b.asked[first:][:ways]
}

// name is one as it was asked for, and where in it the site begins.
type name struct {
	full string
	site uint8
}

func nameOf(full string) name {
	site, err := publicsuffix.EffectiveTLDPlusOne(full)
	if err != nil { // a public suffix itself, or a name with empty labels
		site = full
	}
	return name{full, uint8(len(full) - len(site))}
}
