package nat

import "tapgw/internal/packet"

// Key is a session as the inside sees it. ICMP queries (RFC 5508) have the identifier as InsidePort and no RemotePort;
// protocols without ports have neither, but calls of PPTP (RFC 2637) their identifier as InsidePort.
type Key struct {
	Inside, Remote         packet.Addr
	InsidePort, RemotePort uint16
	Proto                  uint8
}

// InKey is a session as an uplink sees it. ICMP queries have the translated identifier as OutsidePort and no RemotePort;
// protocols without ports have neither, but calls of PPTP the translated identifier as OutsidePort.
type InKey struct {
	Outside, Remote         packet.Addr
	OutsidePort, RemotePort uint16
	Proto, Uplink           uint8
}

// KeyOf is the key of a packet from the inside; false for what cannot open or belong to a session by itself. A call is known by
// the identifier of the inside, which its packets from there do not tell: the caller has put it into SrcPort.
func KeyOf(p *packet.Packet) (Key, bool) {
	k := Key{Inside: p.Src, Remote: p.Dst, InsidePort: p.SrcPort, RemotePort: p.DstPort, Proto: p.Proto}
	switch p.Kind {
	case packet.TCP, packet.UDP, packet.Portless:
		return k, true
	case packet.Call:
		k.RemotePort = 0
		return k, k.InsidePort != 0
	case packet.ICMPQuery:
		k.RemotePort = 0
		return k, !p.IsReply()
	}
	return Key{}, false
}

// InKeyOf is the key of a packet that came in by an uplink; false for what cannot belong to a session by itself.
func InKeyOf(p *packet.Packet, uplink uint8) (InKey, bool) {
	k := InKey{
		Outside: p.Dst, Remote: p.Src, OutsidePort: p.DstPort, RemotePort: p.SrcPort, Proto: p.Proto, Uplink: uplink,
	}
	switch p.Kind {
	case packet.TCP, packet.UDP, packet.Portless, packet.Call:
		return k, true
	case packet.ICMPQuery:
		k.RemotePort = 0
		return k, p.IsReply()
	}
	return InKey{}, false
}

// Ref is the number of a session's record, 0 for none. It stays good for at least a second after the session ended.
type Ref uint32

// State is where a session is in its life. For TCP it follows what both directions have shown (RFC 7857 §2.2).
type State uint8

// The states. A session found in Ended or None is as good as not found.
const (
	None           State = iota // no session
	Ended                       // deleted, its record not yet free
	Active                      // all but TCP
	TCPOpening                  // not acknowledged by both sides yet
	TCPEstablished              // both sides acknowledged something
	TCPClosingOut               // FIN from the inside
	TCPClosingIn                // FIN from the remote
	TCPClosed                   // FIN from both; or reset while opening or closing
	TCPReset                    // RST after it was established
	Offered                     // opened by a remote, the inside has not answered
	Leaving                     // Active, but its next packet from inside is to bind it anew
	Unanswered                  // Active, but nothing has come back for long: the next packet is to be looked at
)

var stateNames = [...]string{
	"none", "ended", "active", "opening", "established", "closing-out", "closing-in", "closed", "reset", "offered", "leaving",
	"unanswered",
}

// String is the name of the state in the API.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// Live reports whether s is the state of a session that exists.
func (s State) Live() bool { return s >= Active }

// finished reports whether both ends know that the session is over, so that its port may be used again at once.
func (s State) finished() bool { return s == TCPClosed || s == TCPReset }

// HopDevice is the hop of a session whose inside is a socket of the host that is bound to the TAP: it takes replies from
// there only.
const HopDevice = 255

// Translation is a session's key and what it is translated to. All but State, Hop and Helped is fixed for the life of the
// session.
type Translation struct {
	Key
	Outside     packet.Addr
	OutsidePort uint16
	Uplink      uint8
	Generation  uint32 // of the uplink when the session was opened
	Hop         uint8  // of the way to the inside endpoint, as given to Open or Relabel
	State       State
	Reason      uint8 // why this uplink was chosen, as given to Open
	Helped      bool  // its packets are read and changed by an application helper, so that none may be a hit
	Turned      bool  // its packets turn back to the inside (RFC 4787 REQ-9), so that none may be a hit
}

// InKey is the session's key on its uplink.
func (tr *Translation) InKey() InKey {
	return InKey{
		Outside: tr.Outside, Remote: tr.Remote, OutsidePort: tr.OutsidePort, RemotePort: tr.RemotePort,
		Proto: tr.Proto, Uplink: tr.Uplink,
	}
}

// words are a key as it is hashed and compared with records: the address on its own side, the remote one, and the rest.
type words struct {
	near, far packet.Addr
	ports     uint64
}

func (k Key) words() words {
	return words{k.Inside, k.Remote, uint64(k.InsidePort)<<48 | uint64(k.RemotePort)<<32 | uint64(k.Proto)<<8}
}

func (k InKey) words() words {
	return words{k.Outside, k.Remote,
		uint64(k.RemotePort)<<32 | uint64(k.OutsidePort)<<16 | uint64(k.Proto)<<8 | uint64(k.Uplink)}
}

// pair is the addresses of IPv4, which share a word.
func (w *words) pair() uint64 { return uint64(w.near.V4())<<32 | uint64(w.far.V4()) }

// hash is that of the key without the lowest bits of its own side's port, which then turn it: so neighbouring ports of a
// host that speak to one remote lie in neighbouring buckets, each in another, and which one only the seed tells.
func (t *Table) hash(w words) uint64 {
	const low = region - 1
	turn, ports := (w.ports>>48|w.ports>>16)&low, w.ports&^(low<<48|low<<16)
	if t.wide == nil {
		return siphash(t.cfg.Seed, w.pair(), ports) ^ turn
	}
	return siphash(t.cfg.Seed, w.near.Hi, w.near.Lo, w.far.Hi, w.far.Lo, ports) ^ turn
}

// matchesOut reports whether record n is the session of an outbound key.
func (t *Table) matchesOut(n uint32, w *words) bool {
	id := &t.records[n]
	if id.ports.Load()&outPortsMask != w.ports {
		return false
	}
	if t.wide == nil {
		return id.addrs.Load() == w.pair()
	}
	a := &t.wide[n]
	return a.inside.load() == w.near && a.remote.load() == w.far
}

// matchesIn reports whether record n is the session of an inbound key.
func (t *Table) matchesIn(n uint32, w *words) bool {
	id := &t.records[n]
	if id.ports.Load()&inPortsMask != w.ports {
		return false
	}
	if t.wide == nil {
		return uint32(id.outside.Load()>>32) == w.near.V4() && uint32(id.addrs.Load()) == w.far.V4()
	}
	a := &t.wide[n]
	return a.outside.load() == w.near && a.remote.load() == w.far
}

// fill writes the fixed words of a record; it must not be published.
func (t *Table) fill(n uint32, tr *Translation) {
	id, w := &t.records[n], tr.words()
	id.ports.Store(w.ports | uint64(tr.OutsidePort)<<16 | uint64(tr.Uplink))
	rest := uint64(tr.Hop)<<hopShift | uint64(tr.Generation)
	if t.wide == nil {
		id.addrs.Store(w.pair())
		id.outside.Store(uint64(tr.Outside.V4())<<32 | rest)
		return
	}
	id.outside.Store(rest)
	a := &t.wide[n]
	a.inside.store(tr.Inside)
	a.remote.store(tr.Remote)
	a.outside.store(tr.Outside)
}

func (t *Table) translation(n uint32) Translation {
	id := &t.records[n]
	ports, rest, own := id.ports.Load(), id.outside.Load(), id.own.Load()
	inside, remote, outside := t.addresses(n)
	return Translation{
		Key: Key{
			Inside: inside, Remote: remote,
			InsidePort: uint16(ports >> 48), RemotePort: uint16(ports >> 32), Proto: uint8(ports >> 8),
		},
		Outside: outside, OutsidePort: uint16(ports >> 16), Uplink: uint8(ports),
		Generation: uint32(rest & generationMask), Hop: uint8(rest >> hopShift), State: ownState(own), Reason: ownReason(own),
		Helped: own&ownHelped != 0, Turned: own&ownTurned != 0,
	}
}

// addresses are those of a record.
func (t *Table) addresses(n uint32) (inside, remote, outside packet.Addr) {
	if t.wide != nil {
		a := &t.wide[n]
		return a.inside.load(), a.remote.load(), a.outside.load()
	}
	id := &t.records[n]
	pair := id.addrs.Load()
	return packet.IPv4(uint32(pair >> 32)), packet.IPv4(uint32(pair)), packet.IPv4(uint32(id.outside.Load() >> 32))
}

func (a *address) load() packet.Addr { return packet.Addr{Hi: a[0].Load(), Lo: a[1].Load()} }

func (a *address) store(v packet.Addr) {
	a[0].Store(v.Hi)
	a[1].Store(v.Lo)
}

// generation is that of the uplink when the session was opened.
func (id *identity) generation() uint32 { return uint32(id.outside.Load() & generationMask) }

// reset prepares the counters of a new record.
func (c *counters) reset(now Tick) {
	c.bytes.Store(0)
	c.seen.Store(uint32(now))
	c.packets.Store(0)
	c.seqEnd.Store(0)
	c.ack.Store(0)
}
