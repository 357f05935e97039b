package tapgw

import (
	"math/bits"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Suspicion is that remotes do not answer by an uplink.
type Suspicion struct {
	Uplink     uint8
	IPv6       bool
	Unanswered int   // first packets in a row
	Answering  uint8 // another uplink, by which remotes answered meanwhile; NoAnswering for none
}

// NoAnswering is that no other uplink had an answer lately.
const NoAnswering = uplinks.MaxUplinks

// Outlook is what Overdue needs from outside.
type Outlook struct {
	Heard   [uplinks.MaxUplinks]time.Duration // by Config.Clock: since then each uplink has received something
	Send    func(uplink uint8, frame []byte)  // transmits a buffer before it returns
	Suspect func(Suspicion)
	// Doubt is called for an uplink by which nothing has come back since something left that may want no answer, or a query of DNS was
	// not answered: only probes can tell.
	Doubt func(uplink uint8)
}

// Overdue does what is to be done about first packets that have not been answered: a SYN goes again by another uplink, with its
// session; of other sessions the next packet will. It reports whether it is to be called again in some 25 ms; if not, Config.Wake
// says when. It must not be called twice at a time.
func (g *Gateway) Overdue(now nat.Tick, o *Outlook) (again bool) {
	at := g.cfg.Clock()
	w, v := g.watch, g.view.Load()
	w.mu.Lock()
	w.dueCount, w.doubts = 0, 0
	g.review(v, o, at)
	for i, left := 0, w.n; i < len(w.slots) && left > 0; i++ {
		if s := &w.slots[i]; s.ref != 0 {
			left--
			g.examine(v, o, s, at)
		}
	}
	var list [uplinks.MaxUplinks]Suspicion
	suspicions := list[:g.suspect(v, at, &list)]
	w.awake = w.n > 0 || w.suspects.Load() != 0
	again = w.awake
	doubts := w.doubts
	w.mu.Unlock()
	for ; doubts != 0; doubts &= doubts - 1 {
		o.Doubt(uint8(bits.TrailingZeros32(doubts)))
	}
	for i := range w.due[:w.dueCount] {
		g.act(&w.due[i], o, at, now)
	}
	for _, s := range suspicions {
		o.Suspect(s)
	}
	return again
}

// review ends suspicions: that others confirm, that were wrong, or that have lasted.
func (g *Gateway) review(v *view, o *Outlook, at time.Duration) {
	w := g.watch
	if w.suspects.Load() == 0 {
		return
	}
	for id := range w.sides {
		e := &w.sides[id]
		if u := v.ByID(uint8(id)); u == nil || !u.State.Usable() {
			e.convict()
		}
		e.review(at, o.Heard[id])
	}
	w.publish()
}

// examine looks at one pending packet.
func (g *Gateway) examine(v *view, o *Outlook, s *pending, at time.Duration) {
	w, tr := g.watch, g.table.Translation(s.ref)
	u := v.ByID(s.uplink)
	switch {
	case !tr.State.Live() || tr.Key != s.key || tr.Uplink != s.uplink || u == nil:
		w.drop(s)
		return
	case g.table.Answered(s.ref):
		w.endUnseen(s, at)
		return
	}
	e, age := &w.sides[s.uplink], at-s.sent
	wait, dead := w.slow.of(s.key.Remote, at)
	quiet := o.Heard[s.uplink] <= s.sent
	bad := e.suspect || !u.State.Usable()
	overdue := !dead && age >= max(wait, e.wait(u.Health.RTT)) && (quiet || age >= lastWait && s.kind != firstOther)
	switch {
	case !overdue || s.missed:
	case s.kind == firstOther:
		s.missed = true
		w.doubts |= 1 << s.uplink
	default:
		s.missed = true
		if s.kind == firstQuery { // names alone may be what is dead
			w.doubts |= 1 << s.uplink
		}
		e.missed(miss{remote: s.key.Remote, sent: s.sent, syn: s.kind == firstSYN, quiet: quiet}, at)
	}
	// What streams to one who never answers stays, unless the uplink is in doubt: its receiver may know it by its address.
	if !s.judged && (overdue && s.kind != firstOther || bad && age >= leastWait) && w.dueCount < maxDue {
		if s.judged = bad || w.afford(at); s.judged {
			w.due[w.dueCount] = *s
			w.dueCount++
		}
	}
	if age >= watchedFor {
		if s.moves > 0 {
			w.slow.isDead(s.key.Remote, at)
		}
		w.drop(s)
	}
}

// Vouch tells that a probe by an uplink was answered so long ago, which refutes that nothing at all comes back by it.
func (g *Gateway) Vouch(uplink uint8, ago time.Duration) {
	w, at := g.watch, g.cfg.Clock()
	if !w.isSuspect(uplink) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sides[uplink].review(at, at-ago)
	w.publish()
}

// suspect finds the uplinks that have become suspect, and how many there are.
func (g *Gateway) suspect(v *view, at time.Duration, list *[uplinks.MaxUplinks]Suspicion) (n int) {
	w := g.watch
	for _, u := range v.Uplinks {
		e := &w.sides[u.ID]
		misses, quiet := e.damning(at)
		if len(misses) == 0 || !u.State.Usable() {
			continue
		}
		answering, apart := g.compare(v, u.ID, quiet, misses[0].sent)
		if !apart || !e.accuse(at, len(misses), quiet) {
			continue
		}
		list[n] = Suspicion{Uplink: u.ID, IPv6: g.cfg.IPv6, Unanswered: len(misses), Answering: answering}
		n++
		w.count(Suspected)
	}
	if n > 0 {
		w.publish()
	}
	return n
}

// compare looks how the other uplinks fare: which has had answers since, and whether an uplink stands apart from them. Where
// others are as silent, or one that receives other things is not outdone by any, the remotes may be what is dead.
func (g *Gateway) compare(v *view, uplink uint8, quiet bool, since time.Duration) (answering uint8, apart bool) {
	others, silent := 0, 0
	for _, u := range v.Uplinks {
		e := &g.watch.sides[u.ID]
		switch {
		case u.ID == uplink || !u.State.Usable():
			continue
		case e.answered > since:
			return u.ID, true
		case e.n >= quietMisses:
			silent++
		}
		others++
	}
	return NoAnswering, others == 0 || quiet && silent < others
}

// act does something about a packet that is overdue.
func (g *Gateway) act(s *pending, o *Outlook, at time.Duration, now nat.Tick) {
	tr := g.table.Translation(s.ref)
	u := g.view.Load().ByID(s.uplink)
	if tr.Key != s.key || !tr.State.Live() || s.moves >= mostMoves || u == nil || !g.anotherUsable(u) || !g.mayLeave(s.ref, &tr) {
		return
	}
	switch {
	case s.kind != firstSYN:
		if s.moves == 0 && !g.table.Answered(s.ref) {
			g.table.Doubt(s.ref)
		}
	case s.length > 0:
		g.resend(s, &tr, o, at, now)
	}
}

// mayLeave reports whether a session may be bound to another uplink although this one seems usable: others may not that belong to
// the same endpoint, or to what was announced here.
func (g *Gateway) mayLeave(ref nat.Ref, tr *nat.Translation) bool {
	switch policy.Reason(tr.Reason) {
	case policy.ReasonRelated, policy.ReasonCompanion:
		return false
	}
	if tr.Proto == packet.ProtoTCP && g.keeps(ref) {
		return false
	}
	u := g.view.Load().ByID(tr.Uplink)
	return !tr.Turned && (g.table.Alone(ref) || u == nil || !u.State.Usable() || g.watch.isSuspect(tr.Uplink))
}

// resend sends the SYN of a session by another uplink, where the session is from then on.
func (g *Gateway) resend(s *pending, old *nat.Translation, o *Outlook, at time.Duration, now nat.Tick) {
	w := g.watch
	b := w.copy[:s.length]
	w.mu.Lock()
	copy(b, w.syns[s.ref%maxPending][:])
	still := w.slots[s.ref%maxPending].ref == s.ref
	w.mu.Unlock()
	if !still { // answered meanwhile
		return
	}
	var p packet.Packet
	p.Decode(b[packet.VnetLen:])
	if key, ok := nat.KeyOf(&p); !ok || key != s.key {
		return
	}
	w.leaves(old.InKey(), s.sent, at)
	if res, ok := g.elsewhere(b, &p, s, old, now); ok && res.Verdict == Send {
		o.Send(res.Uplink, b[:len(b)+int(res.Grown)])
	}
}

// elsewhere binds the session of a packet to another uplink than those that were tried, and sends the packet there.
func (g *Gateway) elsewhere(b []byte, p *packet.Packet, s *pending, old *nat.Translation, now nat.Tick) (Result, bool) {
	r := g.judge(g.sessionOf(b, p))
	if r.action.Direct {
		return Result{}, false
	}
	ref, u, why := g.open(&r, s.key, old.Hop == nat.HopDevice, s.tried, now)
	if why != NoReason || u == nil || s.tried&(1<<u.ID) != 0 {
		return Result{}, false
	}
	g.watch.count(Moved)
	next := *s
	next.ref, next.uplink, next.before, next.moves = ref, u.ID, s.uplink, s.moves+1
	next.tried |= 1 << u.ID
	next.sent, next.again, next.missed, next.judged = g.cfg.Clock(), false, false, false
	g.watch.begin(b, next)
	tr := g.table.Translation(ref)
	return g.sendTranslated(b, p, ref, &tr, u, now), true
}

// watchFirst begins to watch the first packet of a session that was just opened; b is as the inside sent it.
func (g *Gateway) watchFirst(b []byte, p *packet.Packet, key nat.Key, ref nat.Ref, u *uplinks.Uplink) {
	kind, ok := kindOf(b[packet.VnetLen:], p)
	if !ok || g.cfg.Wake == nil {
		return
	}
	e := pending{key: key, ref: ref, uplink: u.ID, tried: 1 << u.ID, sent: g.cfg.Clock(), kind: kind}
	if kind == firstSYN && isWhole(b, p) {
		e.length = uint8(len(b))
	}
	g.watch.begin(b, e)
}

// doubted handles the next packet of a session that has gone unanswered for long: it goes by another uplink where it may. False
// when the session stays where it is.
func (g *Gateway) doubted(b []byte, p *packet.Packet, key nat.Key, ref nat.Ref, tr *nat.Translation, now nat.Tick) (Result, bool) {
	defer g.table.Trust(ref)
	if g.table.Answered(ref) || !g.mayLeave(ref, tr) {
		return Result{}, false
	}
	kind, ok := kindOf(b[packet.VnetLen:], p)
	if !ok {
		return Result{}, false
	}
	s := pending{key: key, ref: ref, uplink: tr.Uplink, tried: 1 << tr.Uplink, kind: kind, moves: mostMoves - 1}
	if kind == firstSYN {
		g.watch.leaves(tr.InKey(), g.cfg.Clock(), g.cfg.Clock())
	}
	return g.elsewhere(b, p, &s, tr, now)
}

// isDoubtful reports whether a packet is of a session that had better be elsewhere: nothing has come back on it for long, or it is
// a SYN that the client sends again by an uplink that is suspect.
func (g *Gateway) isDoubtful(p *packet.Packet, tr *nat.Translation) bool {
	return tr.State == nat.Unanswered ||
		tr.State == nat.TCPOpening && opens(p) && g.watch.isSuspect(tr.Uplink)
}

// WatchEvents calls yield with each kind of what was done about unanswered sessions, and how often since the start.
func (g *Gateway) WatchEvents(yield func(event string, n uint64)) {
	for e := range numWatchEvents {
		yield(e.String(), g.watch.counts[e].Load())
	}
}
