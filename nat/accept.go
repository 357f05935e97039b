package nat

import (
	"errors"

	"tapgw/internal/packet"
)

// Accept makes the session of a packet that came in on an outside port which has one mapping, from a remote that the
// mapping's endpoint has no session with: whether the remote may is the caller's to judge. A session that is there already
// is returned. b.Addresses are not looked at. Errors: ErrNoMapping, ErrTableFull, and those of Limits.
func (t *Table) Accept(k InKey, b Binding, now Tick) (Ref, error) {
	r, err := t.accept(k, b, now)
	if err != nil && !errors.Is(err, ErrNoMapping) {
		t.stats.refused(err)
	}
	return r, err
}

func (t *Table) accept(k InKey, b Binding, now Tick) (Ref, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.FindIn(k); r != 0 {
		return r, nil
	}
	m := t.mappingOn(k.Uplink, k.Proto, k.Outside, k.OutsidePort)
	if m == 0 || b.Uplink != k.Uplink || t.mapping(m).generation != b.Generation {
		return 0, ErrNoMapping
	}
	return t.join(m, k, b, firstState(k.Proto), now)
}

// join makes a session from outside in mapping m.
func (t *Table) join(m uint32, k InKey, b Binding, s State, now Tick) (Ref, error) {
	key := Key{
		Inside: t.mapping(m).inside, InsidePort: t.mapping(m).insidePort,
		Remote: k.Remote, RemotePort: k.RemotePort, Proto: k.Proto,
	}
	if t.FindOut(key) != 0 { // by another mapping, which goes on to be used
		return 0, ErrNoMapping
	}
	r := t.peekFree()
	if r == 0 {
		return 0, ErrTableFull
	}
	if err := t.admit(key.Inside, now); err != nil {
		return 0, err
	}
	t.mapping(m).sessions++
	return t.enter(r, key, b, m, 0, s, now)
}

// mappingOn returns the only mapping on an outside port, 0 when there is none, or several.
func (t *Table) mappingOn(uplink, proto uint8, outside packet.Addr, port uint16) uint32 {
	s := t.findSpace(uplink, proto, outside)
	if s == nil {
		return 0
	}
	if w := s.words[port].Load(); w&portKind == portMapped {
		return w & portCount
	}
	return 0
}
