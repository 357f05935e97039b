package tapgw

import (
	"tapgw/internal/packet"
	"tapgw/nat"
)

// fate is what the first fragment of a datagram decided for the others, which have no ports to decide by.
type fate struct {
	verdict Verdict
	uplink  uint8
	reason  Reason
	ref     nat.Ref // for Send and Deliver, but for a response of a service
	tr      nat.Translation
	direct  bool // leaves as it is
}

// outboundFragment handles a fragment read from the TAP. A fragment with an uplink's own source needs no first one, nor one of a
// protocol that is not translated.
func (g *Gateway) outboundFragment(b []byte, p *packet.Packet, now nat.Tick) Result {
	frame := b[packet.VnetLen:]
	at := p.Place(frame)
	if !at.Sound(p.Proto) {
		return g.drop(BadPacket)
	}
	if at.Offset == 0 {
		p.DecodeFirst(frame)
	}
	if u := g.ownerOf(p); u != nil {
		return g.own(b, p, u, now)
	}
	if !translatable(p.Proto) {
		r := g.judge(g.sessionOf(b, p))
		if res, done := g.direct(b, p, &r, now); done {
			return res
		}
		return g.drop(UnknownProtocol)
	}
	key := nat.FragmentKey{Src: p.Src, Dst: p.Dst, ID: at.ID, Proto: p.Proto}
	if at.Offset > 0 {
		return g.follow(g.fromTAP, key, at, b, p, now)
	}
	res, f := g.outboundFirst(b, p, now)
	if res.Verdict == Send && !f.direct {
		g.table.SpreadID(frame, p, f.tr.Inside)
	}
	return g.lead(g.fromTAP, key, res, f, now)
}

// outboundFirst decides about a first fragment as about a whole packet.
func (g *Gateway) outboundFirst(b []byte, p *packet.Packet, now nat.Tick) (Result, fate) {
	g.callOut(p)
	key, opens := nat.KeyOf(p)
	if !opens || g.table.FindOut(key) == 0 {
		r := g.judge(g.sessionOf(b, p))
		if res, done := g.direct(b, p, &r, now); done {
			return res, fate{verdict: res.Verdict, uplink: res.Uplink, reason: res.Reason, direct: true}
		}
	}
	switch p.Kind {
	case packet.TCP, packet.UDP, packet.ICMPQuery, packet.Portless, packet.Call:
	case packet.Malformed:
		return g.fateOf(g.drop(BadPacket), 0)
	default:
		if g.isOwn(p.Dst) {
			return g.fateOf(Result{Verdict: Return}, 0)
		}
		return g.fateOf(g.drop(UnknownProtocol), 0)
	}
	tr, u := g.response(p, now)
	if u == nil && g.table.FindOut(key) == 0 {
		tr, u = g.lateResponse(p, now)
	}
	if u != nil {
		res := g.respond(b, p, &tr, u, now)
		return res, fate{verdict: res.Verdict, uplink: u.ID, reason: res.Reason, tr: tr}
	}
	res := g.outboundSession(b, p, now)
	return g.fateOf(res, g.table.FindOut(key))
}

// inboundFragment handles a fragment received by an uplink. The host's stack has no copy of fragments of the protocols we
// translate, so what is not ours is given back.
func (g *Gateway) inboundFragment(b []byte, p *packet.Packet, uplink uint8, whole bool, now nat.Tick) Result {
	frame := b[packet.VnetLen:]
	if !translatable(p.Proto) || int(uplink) >= len(g.fromUplink) {
		return Result{Verdict: Ignore}
	}
	at := p.Place(frame)
	if !at.Sound(p.Proto) {
		return g.drop(BadPacket)
	}
	key := nat.FragmentKey{Src: p.Src, Dst: p.Dst, ID: at.ID, Proto: p.Proto}
	if at.Offset > 0 {
		return g.follow(g.fromUplink[uplink], key, at, b, p, now)
	}
	p.DecodeFirst(frame)
	res, f := g.inboundFirst(b, p, uplink, whole, now)
	return g.lead(g.fromUplink[uplink], key, res, f, now)
}

// inboundFirst decides about a first fragment as about a whole packet.
func (g *Gateway) inboundFirst(b []byte, p *packet.Packet, uplink uint8, whole bool, now nat.Tick) (Result, fate) {
	if p.Kind == packet.Malformed {
		return g.fateOf(g.drop(BadPacket), 0)
	}
	g.callIn(p, uplink)
	key, ok := nat.InKeyOf(p, uplink)
	if !ok && !(whole && p.Kind == packet.ICMPQuery) {
		return g.fateOf(g.toHost(b, p, uplink, Result{Verdict: GiveBack, Uplink: uplink}), 0)
	}
	res := g.inboundSession(b, p, key, now)
	if res.Verdict == Ignore {
		res = Result{Verdict: GiveBack, Uplink: uplink}
	}
	return g.fateOf(g.toHost(b, p, uplink, res), g.table.FindIn(key))
}

// fateOf makes the result for a first fragment, which belongs to the session ref, the fate of the others.
func (g *Gateway) fateOf(res Result, ref nat.Ref) (Result, fate) {
	f := fate{verdict: res.Verdict, uplink: res.Uplink, reason: res.Reason, ref: ref}
	if res.Verdict == Send || res.Verdict == Deliver {
		f.tr = g.table.Translation(ref)
		if ref == 0 { // swept since the decision
			f = fate{verdict: Drop, reason: NoSession}
		}
	}
	return res, f
}

// lead releases the fragments that came before the first of their datagram.
func (g *Gateway) lead(m *nat.Fragments[fate], key nat.FragmentKey, res Result, f fate, now nat.Tick) Result {
	for _, held := range m.Decide(key, f, now) {
		var p packet.Packet
		p.Decode(held[packet.VnetLen:])
		if g.later(held, &p, &f, now).Verdict != Drop {
			res.Released = append(res.Released, held)
		}
	}
	return res
}

// follow treats a later fragment as the first of its datagram was, or holds it until that comes.
func (g *Gateway) follow(m *nat.Fragments[fate], key nat.FragmentKey, at packet.Place, b []byte, p *packet.Packet, now nat.Tick) Result {
	f, known := m.Follow(key, at.Offset, b, now)
	if !known {
		return Result{Verdict: Hold}
	}
	return g.later(b, p, &f, now)
}

// later handles a later fragment whose fate is known: it has addresses to translate, but no ports.
func (g *Gateway) later(b []byte, p *packet.Packet, f *fate, now nat.Tick) Result {
	switch {
	case f.verdict == Drop:
		return g.drop(f.reason)
	case f.verdict == GiveBack:
		return Result{Verdict: GiveBack, Uplink: f.uplink}
	case f.verdict == Return:
		return Result{Verdict: Return}
	case !g.stands(f):
		return g.drop(StaleSession)
	case f.verdict == Deliver:
		return g.deliverTranslated(b, p, f.ref, &f.tr, now)
	}
	u := g.view.Load().ByID(f.uplink)
	if u != nil && f.direct {
		return g.own(b, p, u, now)
	}
	if u == nil || u.Generation != f.tr.Generation {
		return g.drop(StaleSession)
	}
	var res Result
	if f.ref == 0 {
		res = g.respond(b, p, &f.tr, u, now)
	} else {
		res = g.sendTranslated(b, p, f.ref, &f.tr, u, now)
	}
	if res.Verdict == Send {
		g.table.SpreadID(b[packet.VnetLen:], p, f.tr.Inside)
	}
	return res
}

// stands reports whether the record is still that of the session: a fate may live a little longer than an ended session's.
func (g *Gateway) stands(f *fate) bool {
	if f.ref == 0 { // a response of a service has none
		return true
	}
	tr := g.table.Translation(f.ref)
	tr.State, tr.Hop, tr.Helped = f.tr.State, f.tr.Hop, f.tr.Helped
	return tr == f.tr
}

// translatable reports whether packets of a protocol can belong to a session.
func translatable(proto uint8) bool { return proto != packet.ProtoIGMP }
