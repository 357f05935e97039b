package tapgw

import (
	"cmp"

	"tapgw/helper"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Outbound handles one frame read from the TAP: b is its virtio header followed by the Ethernet frame, rewritten in place
// when the verdict is Send.
func (g *Gateway) Outbound(b []byte, now nat.Tick) Result {
	if len(b) < packet.VnetLen {
		return g.drop(BadPacket)
	}
	var p packet.Packet
	p.Decode(b[packet.VnetLen:])
	inside := p.Src
	res := g.outbound(b, &p, now)
	if res.Verdict != Send {
		return res
	}
	b = b[:len(b)+int(res.Grown)]
	if res.turned && g.view.Load().leads(p.Dst) {
		return g.turn(b, &p, res, now)
	}
	return g.fit(b, &p, inside, res)
}

func (g *Gateway) outbound(b []byte, p *packet.Packet, now nat.Tick) Result {
	if p.IPv6 != g.cfg.IPv6 {
		return g.drop(NotIPv4)
	}
	g.callOut(p)
	switch p.Kind {
	case packet.TCP, packet.UDP, packet.ICMPQuery, packet.Portless, packet.Call:
		return g.outboundSession(b, p, now)
	case packet.ICMPError:
		return g.outboundError(b, p, now)
	case packet.Fragment:
		return g.outboundFragment(b, p, now)
	case packet.ARP:
		return g.answerARP(b[packet.VnetLen:])
	case packet.Discovery:
		return g.answerSolicitation(b[packet.VnetLen:], p)
	case packet.NotIP:
		return g.drop(NotIPv4)
	case packet.Malformed:
		return g.drop(BadPacket)
	}
	if u := g.ownerOf(p); u != nil {
		return g.own(b, p, u, now)
	}
	r := g.judge(g.sessionOf(b, p))
	if res, done := g.direct(b, p, &r, now); done {
		return res
	}
	return g.drop(UnknownProtocol)
}

// outboundSession translates a packet of a session, opening the session when it is the first.
func (g *Gateway) outboundSession(b []byte, p *packet.Packet, now nat.Tick) Result {
	if tr, u := g.response(p, now); u != nil {
		return g.respond(b, p, &tr, u, now)
	}
	key, query := nat.KeyOf(p)
	if !query && !g.view.Load().hasOwn(p.Src) { // who has an address of its own answers queries too
		return g.outboundMiss(b, p, key, now)
	}
	ref := g.table.FindOut(key)
	if ref == 0 {
		return g.outboundMiss(b, p, key, now)
	}
	tr := g.table.Translation(ref)
	u := g.view.Load().ByID(tr.Uplink)
	if u == nil || u.Generation != tr.Generation || g.movable(u, p, ref) || g.isSevered(p, ref, &tr) || tr.State == nat.Leaving {
		return g.outboundMiss(b, p, key, now)
	}
	if g.isDoubtful(p, &tr) {
		if res, moved := g.doubted(b, p, key, ref, &tr, now); moved {
			return res
		}
	}
	if p.Kind == packet.TCP && opens(p) {
		g.watch.repeated(ref)
	}
	if tr.Hop != nat.HopDevice && g.isBound(b) {
		g.table.SetHop(ref, nat.HopDevice)
	}
	return g.sendTranslated(b, p, ref, &tr, u, now)
}

// isBound reports whether a frame comes from a socket that is bound to the TAP: package fastpath tells by the last bit of
// the destination address.
func (g *Gateway) isBound(b []byte) bool {
	const last = packet.VnetLen + 5
	return b[last] == g.cfg.GatewayMAC[5]^1
}

// movable reports whether a session of an uplink that is not usable may be bound anew: everything but TCP, which cannot
// survive another outside address. A SYN begins another connection, whatever became of the one before, unless the user wants that
// TCP waits.
func (g *Gateway) movable(u *uplinks.Uplink, p *packet.Packet, ref nat.Ref) bool {
	if !g.Avoids(u) {
		return false
	}
	return p.Kind != packet.TCP || p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN && !g.keeps(ref)
}

// Avoids reports whether packets had better leave by another uplink than u.
func (g *Gateway) Avoids(u *uplinks.Uplink) bool {
	return !u.State.Usable() && u.State != uplinks.Probing && g.anotherUsable(u)
}

// anotherUsable reports whether an uplink other than u takes new sessions.
func (g *Gateway) anotherUsable(u *uplinks.Uplink) bool {
	for _, o := range g.view.Load().Uplinks {
		if o.ID != u.ID && o.State.Usable() && o.Ready() {
			return true
		}
	}
	return false
}

// sendTranslated rewrites b by the translation and sends it, or answers with frag-needed when it cannot fit.
func (g *Gateway) sendTranslated(b []byte, p *packet.Packet, ref nat.Ref, tr *nat.Translation, u *uplinks.Uplink, now nat.Tick) Result {
	if !u.Ready() {
		return g.drop(NotReady)
	}
	if tooBig(b, p, u) {
		return g.refuse(TooBig, b, p, u.MTU, now)
	}
	length := len(b)
	if tr.Helped {
		var ok bool
		if b, ok = g.help(b, p, ref, tr, helper.Outbound, u.MTU, now); !ok {
			return g.drop(HelperWaits)
		}
	}
	vnet := packet.VnetHeader(b)
	if !nat.RewriteOut(b[packet.VnetLen:], p, tr, vnet.NeedsCsum()) {
		return g.drop(BadPacket)
	}
	g.clamp(b, p, u)
	g.table.CountOut(ref, now, int(p.Len), segments(vnet, p), p)
	return Result{Verdict: Send, Uplink: u.ID, turned: tr.Turned, Grown: int32(len(b) - length)}
}

// outboundMiss handles a packet without a usable session: it opens one, or says why not.
func (g *Gateway) outboundMiss(b []byte, p *packet.Packet, key nat.Key, now nat.Tick) Result {
	if u := g.ownerOf(p); u != nil {
		return g.own(b, p, u, now)
	}
	r := g.judge(g.sessionOf(b, p))
	if res, done := g.direct(b, p, &r, now); done {
		return res
	}
	if !isHost(p.Src) || !isHost(p.Dst) {
		return g.drop(BadAddress)
	}
	switch own := g.isOwn(p.Dst); {
	case own && !g.turns(b, p):
		return Result{Verdict: Return}
	case !own && g.view.Load().translates(p.Dst): // the host has no route there
		return g.refuse(NoRoute, b, p, 0, now)
	case p.Kind == packet.TCP && !g.mayOpen(p):
		return g.refuse(NotSYN, b, p, 0, now)
	case p.Kind == packet.ICMPQuery && p.IsReply():
		return g.drop(NoSession)
	}
	if tr, u := g.lateResponse(p, now); u != nil {
		return g.respond(b, p, &tr, u, now)
	}
	ref, u, why := g.open(&r, key, g.isBound(b), 0, now)
	if why == NoUplink {
		why = cmp.Or(g.view.Load().unmapped(p.Src), NoUplink)
	}
	if why != NoReason {
		g.refusals.note(why, p.Src)
		return g.refuse(why, b, p, 0, now)
	}
	tr := g.table.Translation(ref)
	g.watchFirst(b, p, key, ref, u)
	return g.sendTranslated(b, p, ref, &tr, u, now)
}

// own sends a packet that already carries an uplink's own address by that uplink, with nothing but the segment size of TCP
// changed: replies of the host's port forwards and services.
func (g *Gateway) own(b []byte, p *packet.Packet, u *uplinks.Uplink, now nat.Tick) Result {
	if !u.Ready() {
		return g.drop(NotReady)
	}
	if tooBig(b, p, u) {
		return g.refuse(TooBig, b, p, u.MTU, now)
	}
	g.clamp(b, p, u)
	return Result{Verdict: Send, Uplink: u.ID}
}

// outboundError translates an ICMP error that an inside host sends about a packet it received (RFC 5508 REQ-5).
func (g *Gateway) outboundError(b []byte, p *packet.Packet, now nat.Tick) Result {
	frame := b[packet.VnetLen:]
	v := g.view.Load()
	if u := g.ownerOf(p); u != nil {
		return g.own(b, p, u, now)
	}
	key, ok := nat.QuotedKeyOut(frame, p)
	ref := g.table.FindOut(key)
	if ref == 0 {
		if res, done := g.directError(b, p, key, ok, now); done {
			return res
		}
	}
	switch {
	case ref == 0 && g.isOwn(p.Dst):
		return Result{Verdict: Return}
	case !ok:
		return g.drop(BadICMP)
	case ref == 0:
		return g.drop(NoSession)
	}
	tr := g.table.Translation(ref)
	u := v.ByID(tr.Uplink)
	if u == nil || u.Generation != tr.Generation {
		return g.drop(StaleSession)
	}
	if !u.Ready() {
		return g.drop(NotReady)
	}
	if !nat.RewriteErrorOut(frame, p, &tr) {
		return g.drop(BadICMP)
	}
	if p.IsUnreachable() {
		g.table.Refuse(ref)
	}
	return Result{Verdict: Send, Uplink: u.ID, turned: tr.Turned}
}

// udpHeader is its length, bytes.
const udpHeader = 8

// tooBig reports whether a packet that must not be cut, or a datagram of a UDP super-packet, exceeds the uplink's MTU; the
// segments of a TCP super-packet are made to fit by whoever sends it, and fit cuts the others.
func tooBig(b []byte, p *packet.Packet, u *uplinks.Uplink) bool {
	v, size := packet.VnetHeader(b), int(p.Len)
	switch v.GSOType() {
	case packet.GSONone:
		if !p.DontFragment {
			return false
		}
	case packet.GSOUDPL4:
		size = min(size, int(p.L4-p.L3)+udpHeader+int(v.GSOSize()))
	default:
		return false
	}
	return size > u.MTU
}

// segments is how many packets a super-packet becomes on the wire.
func segments(v packet.VnetHeader, p *packet.Packet) int {
	size := int(v.GSOSize())
	if v.GSOType() == packet.GSONone || size == 0 {
		return 1
	}
	return (int(p.Len) + size - 1) / size
}

// isHost reports whether a can be one host's address beyond this link.
func isHost(addr packet.Addr) bool {
	if !addr.Is4() {
		return isHostV6(addr)
	}
	switch a := addr.V4(); {
	case a>>24 == 0, a>>24 == 127, a>>28 >= 14: // this network, loopback, multicast, reserved and broadcast
		return false
	case a>>16 == 169<<8|254:
		return false
	}
	return true
}

// isHostV6 is isHost of an IPv6 address: global or unique-local unicast (RFC 4291 §2.4, RFC 4193).
func isHostV6(a packet.Addr) bool {
	switch {
	case a.Hi == 0: // unspecified, loopback, and those that hold an IPv4 address
		return false
	case a.Hi>>54 == 0xfe80>>6, a.Hi>>56 == 0xff: // link-local, multicast
		return false
	}
	return true
}
