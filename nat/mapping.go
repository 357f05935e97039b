package nat

import "tapgw/internal/packet"

// mapping ties an inside endpoint to an outside endpoint on one uplink. It lives as long as it has sessions or reservations.
// An endpoint has one mapping that new sessions use (the one in Table.endpoints) and may have older ones on other uplinks.
type mapping struct {
	inside, outside         packet.Addr
	generation              uint32
	sessions                uint32 // of a free mapping: the next free one
	insidePort, outsidePort uint16
	proto, uplink           uint8
	ending                  ending // the worst of its sessions'
	reserved                uint8  // of sessions: reservations, which are none
	offered                 uint8  // of its sessions, those the inside has not answered
	computed                bool   // as of Binding: its port has no word
	first                   uint32 // the session that made it, while it lives
}

// mappingChunk is how many mappings get memory together: mostly they are much fewer than sessions.
const mappingChunk = 4096

// mapping returns mapping n, 0 included, which stays empty.
func (t *Table) mapping(n uint32) *mapping { return &t.mappings[n/mappingChunk][n%mappingChunk] }

// Bound returns the uplink on which an inside endpoint has its mapping. For ICMP the port is the identifier, for protocols
// without ports 0.
func (t *Table) Bound(proto uint8, inside packet.Addr, port uint16) (uplink uint8, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, _ := t.endpoint(Key{Proto: proto, Inside: inside, InsidePort: port})
	return t.mapping(m).uplink, m != 0
}

func (t *Table) endpointHash(inside packet.Addr, port uint16, proto uint8) uint64 {
	return siphash(t.cfg.Seed, inside.Hi, inside.Lo, uint64(port)<<8|uint64(proto))
}

func (t *Table) mappingHash(n uint32) uint64 {
	m := t.mapping(n)
	return t.endpointHash(m.inside, m.insidePort, m.proto)
}

// endpoint returns the mapping that new sessions of k's inside endpoint use, and its slot; 0 when there is none.
func (t *Table) endpoint(k Key) (m uint32, slot int) {
	return t.endpoints.find(t.endpointHash(k.Inside, k.InsidePort, k.Proto), func(n uint32) bool {
		m := t.mapping(n)
		return m.inside == k.Inside && m.insidePort == k.InsidePort && m.proto == k.Proto
	})
}

// mappingFor returns the mapping that a session of k on b joins, with that session counted.
func (t *Table) mappingFor(k Key, b Binding, now Tick) (uint32, error) {
	current, slot := t.endpoint(k)
	if current != 0 && t.joinable(current, k, b) {
		t.mapping(current).sessions++
		return current, nil
	}
	h := t.endpointHash(k.Inside, k.InsidePort, k.Proto)
	if m := t.earlier(k, b); m != 0 {
		t.mapping(m).sessions++
		if current == 0 {
			t.addEndpoint(h, m)
		} else if !b.Inward {
			t.endpoints.words[slot].Store(indexWord(h, m))
		}
		return m, nil
	}
	m := t.peekMapping()
	if current == 0 {
		if err := t.admitPort(k.Inside); err != nil {
			return 0, err
		}
		if !t.addEndpoint(h, m) {
			return 0, ErrTableFull
		}
	}
	outside, port, err := t.takeOutside(k, b, m, now)
	if err != nil {
		if current == 0 {
			t.endpoints.remove(h, m)
		}
		return 0, err
	}
	if current != 0 && !b.Inward {
		t.endpoints.words[slot].Store(indexWord(h, m))
	}
	t.claimMapping(m)
	t.charge(k.Inside, 0, 1)
	*t.mapping(m) = mapping{
		inside: k.Inside, insidePort: k.InsidePort, proto: k.Proto, uplink: b.Uplink, generation: b.Generation,
		outside: outside, outsidePort: port, sessions: 1, computed: b.isComputed(),
	}
	return m, nil
}

// fewEndpoints is how many inside endpoints there is room for at the start: mostly they have many sessions each.
const fewEndpoints = 4096

// addEndpoint makes m the mapping that new sessions of its endpoint use, in twice the room when there is none.
func (t *Table) addEndpoint(h uint64, m uint32) bool {
	if t.endpoints.insert(h, m, t.mappingHash) {
		return true
	}
	old := t.endpoints
	t.endpoints = newIndex(2 * int(old.buckets) * bucketFill)
	for i := range old.words {
		if n := uint32(old.words[i].Load()); n != 0 && !t.endpoints.insert(t.mappingHash(n), n, t.mappingHash) {
			t.endpoints = old
			return false
		}
	}
	return t.endpoints.insert(h, m, t.mappingHash)
}

// joinable reports whether a session of k on b can use mapping m: it is of that uplink now, and no other endpoint that
// shares the port talks to the same remote.
func (t *Table) joinable(n uint32, k Key, b Binding) bool {
	m := t.mapping(n)
	return m.uplink == b.Uplink && m.generation == b.Generation && b.has(m.outside) &&
		t.FindIn(inKey(k, b.Uplink, m.outside, m.outsidePort)) == 0
}

func inKey(k Key, uplink uint8, outside packet.Addr, port uint16) InKey {
	return InKey{
		Outside: outside, Remote: k.Remote, OutsidePort: port, RemotePort: k.RemotePort, Proto: k.Proto, Uplink: uplink,
	}
}

// leave takes one session off a mapping, which ends with its last one.
func (t *Table) leave(n uint32, e ending, now Tick) {
	m := t.mapping(n)
	m.ending = max(m.ending, e)
	if m.sessions--; m.sessions > 0 {
		return
	}
	t.endpoints.remove(t.mappingHash(n), n)
	if isNumbered(m.proto, m.insidePort) && !m.computed {
		t.findSpace(m.uplink, m.proto, m.outside).release(m.outsidePort, m.ending, now)
	}
	t.stats.mappings.Add(-1)
	t.charge(m.inside, 0, -1)
	*m = mapping{sessions: t.freeMap}
	t.freeMap = n
}

// peekMapping returns the number of the next mapping. There is always one: each mapping has a session.
func (t *Table) peekMapping() uint32 {
	if t.freeMap != 0 {
		return t.freeMap
	}
	if t.usedMap+1 == uint32(len(t.mappings)*mappingChunk) {
		t.mappings = append(t.mappings, new([mappingChunk]mapping))
	}
	return t.usedMap + 1
}

func (t *Table) claimMapping(m uint32) {
	if m == t.freeMap {
		t.freeMap = t.mapping(m).sessions
	} else {
		t.usedMap = m
	}
	t.stats.mappings.Add(1)
}
