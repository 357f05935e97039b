package nat

import (
	"time"

	"tapgw/internal/packet"
)

const (
	restTime  = 120 * time.Second // a port rests after its mapping ended (RFC 6888 REQ-8)
	pickTries = 256               // ports asked for in one pick before giving up
	allPorts  = 1 << 16
)

// Ownership says whose an outside port is.
type Ownership uint8

// Mapped and Resting ports are ours: the host must not answer for them.
const (
	Free Ownership = iota
	Mapped
	Resting
)

// Words of a port: two bits of kind, and what the kind needs.
const (
	portFree    = iota << 30
	portMapped  // | number of the mapping
	portShared  // | restBit | count of mappings
	portResting // | low bits of the tick at which it is free

	portKind    = 3 << 30
	restBit     = 1 << 29       // one of the mappings that shared the port asked for a rest
	pooledBit   = 1 << 28       // taken by its number, while it stayed among the free ones of the pool
	portCount   = pooledBit - 1 // count or number of the mappings
	portDetails = 1<<30 - 1
)

// Owned tells whose a port of an uplink's address is. Lock-free; what was never used there is Free.
func (t *Table) Owned(uplink, proto uint8, outside packet.Addr, port uint16) Ownership {
	s := t.findSpace(uplink, proto, outside)
	if s == nil {
		return Free
	}
	switch s.words[port].Load() & portKind {
	case portMapped, portShared:
		return Mapped
	case portResting:
		return Resting
	}
	return Free
}

// takePort finds an outside address and port for mapping m of k on b, and marks it. An inside host keeps to one address
// of the pool as long as that has ports (RFC 4787 REQ-2).
func (t *Table) takePort(k Key, b Binding, m uint32, now Tick) (*space, uint16, error) {
	if b.Exact {
		return t.takeExact(k, b, m, now)
	}
	n := len(b.Addresses)
	start := t.firstAddress(k.Inside, n)
	for i := range n {
		s := t.spaceOf(b.Uplink, k.Proto, b.Addresses[(start+i)%n])
		s.wake(now)
		if b.port != 0 {
			if !s.take(b.port) {
				continue
			}
			s.words[b.port].Store(portMapped | m)
			s.mappings++
			return s, b.port, nil
		}
		if port, ok := t.pickShared(s, k, b.Uplink); ok {
			s.share(port)
			t.stats.shared.Add(1)
			return s, port, nil
		}
		if port, ok := t.pickFor(s, k); ok {
			s.words[port].Store(portMapped | m)
			s.mappings++
			return s, port, nil
		}
	}
	return nil, 0, ErrNoPort
}

// firstAddress is the place in a pool of n addresses of the one that an inside host is given first.
func (t *Table) firstAddress(inside packet.Addr, n int) int {
	return int(siphash(t.cfg.Seed, inside.Hi, inside.Lo) >> 32 * uint64(n) >> 32)
}

// pickFor takes a free port for an endpoint. That of UDP has the parity of the inside port as long as there are such (RFC
// 4787 REQ-4), as RTP has its control protocol on the odd port beside it; for others parity means nothing (RFC 7857 §8).
func (t *Table) pickFor(s *space, k Key) (uint16, bool) {
	if s.proto == protoUDP {
		if port, ok := t.pick(s, 1, k.InsidePort&1); ok {
			return port, true
		}
	}
	return t.pick(s, 0, 0)
}

// pick takes a port with these bits uniformly from the free ones that no local socket has, so that the choice cannot be
// foreseen (RFC 6056). Ports asked in vain move behind the ones still to be asked, but stay free.
func (t *Table) pick(s *space, mask, bits uint16) (uint16, bool) {
	left := s.free
	for try := 0; try < pickTries && left > 0; try++ {
		i := t.random(left)
		port := s.pool[i]
		left--
		s.pool[i], s.pool[left] = s.pool[left], port
		if port&mask != bits || s.words[port].Load() != portFree || t.held(s, port) {
			continue
		}
		s.free--
		s.pool[left], s.pool[s.free] = s.pool[s.free], port
		return port, true
	}
	return 0, false
}

// pickShared chooses, when less than a quarter of the ports is free, a port on which nobody talks to the remote of k.
func (t *Table) pickShared(s *space, k Key, uplink uint8) (uint16, bool) {
	if !t.cfg.ShareTCP || s.proto != protoTCP || s.free*4 >= len(s.pool) {
		return 0, false
	}
	for range pickTries {
		port := t.ports[t.random(len(t.ports))]
		word := s.words[port].Load()
		kind := word & portKind
		if (kind == portMapped && t.mapping(word&portCount).reserved == 0 || kind == portShared) &&
			t.FindIn(inKey(k, uplink, s.outside, port)) == 0 && !t.held(s, port) {
			return port, true
		}
	}
	return 0, false
}

func (t *Table) held(s *space, port uint16) bool {
	if t.cfg.Held == nil || !t.cfg.Held(s.proto, s.outside, port) {
		return false
	}
	t.stats.held.Add(1)
	return true
}

// random is a number below n.
func (t *Table) random(n int) int { return int(t.cfg.Random() >> 32 * uint64(n) >> 32) }

// share adds a mapping to a port that has one or more.
func (s *space) share(port uint16) {
	s.mappings++
	w := &s.words[port]
	old := w.Load()
	if old&portKind == portShared {
		w.Store(old + 1)
		return
	}
	w.Store(portShared | old&pooledBit | 2)
}

// ending is how sure it is that a remote has forgotten what used a port.
type ending uint8

const (
	unused    ending = iota // it never heard of it, or cannot reach it any more
	closed                  // it said so, but may keep TIME-WAIT
	abandoned               // it may still send
)

// release takes a mapping off a port. After the last the port rests if one was abandoned (RFC 6888 REQ-8); one that was
// closed too while half of the ports are free, or a connection of other timestamps would lose a second to TIME-WAIT.
func (s *space) release(port uint16, e ending, now Tick) {
	s.mappings--
	w := s.words[port].Load()
	if w&portKind == portShared {
		if e == abandoned {
			w |= restBit
		}
		if w--; w&portCount > 0 {
			s.words[port].Store(w)
			return
		}
		if w&restBit != 0 {
			e = abandoned
		}
	}
	if w&pooledBit != 0 {
		s.words[port].Store(portFree)
		return
	}
	if e == unused || !isTransport(s.proto) || e == closed && 2*s.free < len(s.pool) {
		s.setFree(port)
		return
	}
	until := uint32(now) + ticks(restTime)
	s.words[port].Store(portResting | until&portDetails)
	s.resting[(s.first+s.rest)%len(s.resting)] = port
	s.rest++
}

// wake frees the ports that have rested.
func (s *space) wake(now Tick) {
	for s.rest > 0 {
		port := s.resting[s.first]
		if left := int32((s.words[port].Load()-uint32(now))<<2) >> 2; left > 0 {
			return
		}
		s.first, s.rest = (s.first+1)%len(s.resting), s.rest-1
		s.setFree(port)
	}
}

func (s *space) setFree(port uint16) {
	s.words[port].Store(portFree)
	s.pool[s.free] = port
	s.free++
}
