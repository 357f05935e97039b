package tapgw

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
)

// maxControls is how many control sessions are followed at once; more go unhelped.
const maxControls = 1024

// control is one control session.
type control struct {
	owner   *helpers
	session nat.Translation // without what may change

	mu      sync.Mutex // one packet at a time
	begin   func() helper.Conversation
	talk    helper.Conversation
	done    bool      // the helper needs to see no more
	now     nat.Tick  // of the packet in hand
	streams [2]stream // TCP, by direction
	waiting []*related
}

// helpers follows control sessions, and keeps what they announced. Locks are taken in this order: Gateway.mu, control.mu, mu.
type helpers struct {
	table *nat.Table
	set   atomic.Pointer[helper.Set]
	count helperCounts
	calls calls
	// at is the binding to one outside address of an uplink.
	at func(uplink uint8, outside packet.Addr) nat.Binding

	mu       sync.RWMutex
	controls map[nat.Ref]*control
	expected map[expectation]*related
	waiting  atomic.Int32 // len(expected)
}

// helperCounts counts what helpers did, since the start.
type helperCounts struct {
	changed   atomic.Uint64 // payloads that became others
	announced atomic.Uint64 // related sessions
	refused   atomic.Uint64 // related sessions that were not to be, or had no room
	opened    atomic.Uint64 // related sessions that came
	unhelped  atomic.Uint64 // control sessions that there was no room to follow
}

func newHelpers(table *nat.Table) *helpers {
	h := &helpers{table: table, controls: map[nat.Ref]*control{}, expected: map[expectation]*related{}}
	h.set.Store(&helper.Set{})
	return h
}

// SetHelpers replaces the helpers, for new control sessions.
func (g *Gateway) SetHelpers(s helper.Set) { g.helpers.set.Store(&s) }

// HelperEvents calls yield with each kind of what helpers do and how often that was since the start.
func (g *Gateway) HelperEvents(yield func(event string, n uint64)) {
	c := &g.helpers.count
	yield("payload_changed", c.changed.Load())
	yield("session_announced", c.announced.Load())
	yield("session_refused", c.refused.Load())
	yield("session_opened", c.opened.Load())
	yield("no_room", c.unhelped.Load())
}

// wanted returns the helper of a session to be opened, nil for none.
func (h *helpers) wanted(k nat.Key) helper.Helper {
	one := (*h.set.Load())[helper.Service{Proto: k.Proto, Port: k.RemotePort}]
	if one == nil {
		return nil
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.controls) >= maxControls {
		h.count.unhelped.Add(1)
		return nil
	}
	return one
}

// follow begins to help the session ref, which was opened with nat.Binding.Helped.
func (h *helpers) follow(ref nat.Ref, one helper.Helper) {
	c := &control{owner: h, session: fixed(h.table.Translation(ref))}
	s := c.session
	c.begin = func() helper.Conversation {
		return one.Begin(helper.Session{
			Proto:   s.Proto,
			Inside:  netip.AddrPortFrom(s.Inside.Netip(), s.InsidePort),
			Outside: netip.AddrPortFrom(s.Outside.Netip(), s.OutsidePort),
			Remote:  netip.AddrPortFrom(s.Remote.Netip(), s.RemotePort),
		}, c.reserve)
	}
	c.talk = c.begin()
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.controls[ref]; old == nil || old.session != c.session {
		h.controls[ref] = c
	}
}

// fixed is a translation without what may change in the life of a session.
func fixed(tr nat.Translation) nat.Translation {
	tr.Hop, tr.State, tr.Helped = 0, nat.None, false
	return tr
}

// find returns the control session of a record, nil when nobody follows it.
func (h *helpers) find(ref nat.Ref, tr *nat.Translation) *control {
	h.mu.RLock()
	defer h.mu.RUnlock()
	c := h.controls[ref]
	if c == nil || c.session != fixed(*tr) {
		return nil
	}
	return c
}

// help lets the helper of a session read and change a packet, which is as it came, and returns its buffer as it is then. Of
// p all that counts becomes what the inside sees. False when the packet must not go on.
func (g *Gateway) help(b []byte, p *packet.Packet, ref nat.Ref, tr *nat.Translation, d helper.Direction, mtu int, now nat.Tick) ([]byte, bool) {
	if tr.RemotePort == portDomain {
		g.learn(b, p, tr, d, now)
	}
	c := g.helpers.find(ref, tr)
	if c == nil || p.Kind != packet.TCP && p.Kind != packet.UDP {
		return b, true
	}
	if isFragment(b, p) {
		return b, p.Kind == packet.UDP // a part of a segment can be neither read nor moved
	}
	q := *p // so that p itself does not move to the heap, which would cost all other packets too
	s := segmentOf(b, &q)
	if !s.isSound() {
		return b, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
	ok := true
	if q.Kind == packet.TCP {
		ok = c.segment(&s, tr.State, d, mtu)
	} else {
		c.datagram(&s, d, mtu)
	}
	if c.done && c.streams[0].plain() && c.streams[1].plain() {
		g.helpers.release(ref)
	}
	*p = q
	return s.b, ok
}

// datagram gives a datagram to the helper.
func (c *control) datagram(s *segment, d helper.Direction, mtu int) {
	payload := s.payload()
	if int(s.l4()[4])<<8|int(s.l4()[5]) != len(s.l4()) { // with something behind it that is none of it
		return
	}
	if out := c.rewrite(d, payload); len(out) <= s.room() && !same(out, payload) {
		c.owner.count.changed.Add(1)
		s.replace(out, mtu)
	}
}

// rewrite asks the helper, which is asked no more once it is done.
func (c *control) rewrite(d helper.Direction, payload []byte) []byte {
	if c.done {
		return payload
	}
	out := c.talk.Rewrite(d, payload)
	c.done = c.talk.Done()
	if len(out) == 0 {
		return payload
	}
	return out
}

// same reports whether two slices are the same memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// segment gives what a segment brings to the helper, and makes all its numbers those of the receiver. False when it must
// wait for what comes before it, or for its turn in a smaller packet.
func (c *control) segment(s *segment, state nat.State, d helper.Direction, mtu int) bool {
	p, ours, theirs := s.p, &c.streams[d], &c.streams[1-d]
	c.greet(p, state, d)
	seq := p.Seq + uint32(p.TCPFlags&packet.SYN)>>1
	payload := s.payload()
	if len(payload)+int(p.TCPFlags&packet.FIN) > 0 && !c.read(ours, seq, payload, d, s.room()) {
		return false
	}
	at, out := ours.render(seq, payload)
	if len(out) > s.room() {
		return false
	}
	if !same(out, payload) {
		s.replace(out, mtu)
	}
	at -= seq - p.Seq
	s.put32(4, at)
	ack := p.Ack
	if p.TCPFlags&packet.ACK != 0 {
		ack = theirs.toSender(p.Ack, false)
		theirs.acknowledged(p.Ack)
		s.put32(8, ack)
		s.eachSACK(func(left int) {
			s.put32(left, theirs.toSender(s.get32(left), true))
			s.put32(left+4, theirs.toSender(s.get32(left+4), false))
		})
	}
	if d == helper.Inbound {
		p.SeqEnd = at + uint32(len(out)) + p.SeqEnd - p.Seq - uint32(len(payload))
		p.Seq, p.Ack = at, ack
	}
	return true
}

// greet begins both streams anew with a connection: what is said of the one before does not hold any more. Blind SYNs from
// outside (RFC 5961 §4) change nothing.
func (c *control) greet(p *packet.Packet, state nat.State, d helper.Direction) {
	ours, theirs := &c.streams[d], &c.streams[1-d]
	switch p.TCPFlags & (packet.SYN | packet.ACK) {
	case packet.SYN | packet.ACK:
		if !ours.begun {
			ours.begin(p.Seq + 1)
		}
	case packet.SYN:
		if d == helper.Outbound && state != nat.TCPEstablished || !ours.begun && !theirs.begun {
			c.streams = [2]stream{}
			ours.begin(p.Seq + 1)
			c.talk, c.done = c.begin(), false
		}
	}
}

// read lets the helper read what of a payload it has not read yet. False when something in front of that is missing.
func (c *control) read(ours *stream, seq uint32, payload []byte, d helper.Direction, room int) bool {
	if c.done {
		ours.passed(seq + uint32(len(payload)))
		return true
	}
	read, ok := ours.unread(seq, payload)
	if !ok || read == len(payload) {
		return ok
	}
	fresh := payload[read:]
	out := c.rewrite(d, fresh)
	if read+len(out) > room {
		out = fresh
	}
	if ours.took(fresh, out) && !same(out, fresh) {
		c.owner.count.changed.Add(1)
	}
	return true
}

// release makes a session an ordinary one.
func (h *helpers) release(ref nat.Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.controls, ref)
	h.table.EndHelp(ref)
}
