package nat

import (
	"math"
	"slices"

	"tapgw/internal/packet"
)

// ReservePair is Reserve for an endpoint and the one at the next port: they get an outside port of the same parity and the
// one above it, as the two of a media stream must have (RFC 3550 §11, RFC 4787 REQ-4). Errors: those of Reserve; ErrNoPort also
// when one of them is mapped to a port beside which the other cannot be.
func (t *Table) ReservePair(proto uint8, inside packet.Addr, port uint16, b Binding, now Tick) (pair [2]Reservation, err error) {
	if port == math.MaxUint16 {
		return pair, ErrNoPort
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, err = t.placePair(proto, inside, port, b, now); err != nil {
		return pair, err
	}
	if pair[0], err = t.reserve(proto, inside, port, b, now); err != nil {
		return pair, err
	}
	b.port++
	if pair[1], err = t.reserve(proto, inside, port+1, b, now); err != nil {
		t.cancel(pair[0], now)
		return pair, err
	}
	if pair[1].Outside != pair[0].Outside || pair[1].OutsidePort != pair[0].OutsidePort+1 {
		t.cancel(pair[0], now)
		t.cancel(pair[1], now)
		return pair, ErrNoPort
	}
	return pair, nil
}

// placePair returns b with the address and the lower port of a pair: beside the mapping that one of its endpoints has, else two
// free ports.
func (t *Table) placePair(proto uint8, inside packet.Addr, port uint16, b Binding, now Tick) (Binding, error) {
	if b.Exact || b.isComputed() {
		return b, nil
	}
	for i := range uint16(2) {
		k := Key{Proto: proto, Inside: inside, InsidePort: port + i}
		if n, _ := t.endpoint(k); n != 0 && t.joinable(n, k, b) {
			m := t.mapping(n)
			b.Addresses, b.port = []packet.Addr{m.outside}, m.outsidePort-i
			if b.port == 0 {
				return b, ErrNoPort
			}
			return b, nil
		}
	}
	for _, a := range b.Addresses {
		s := t.spaceOf(b.Uplink, proto, a)
		s.wake(now)
		if low, ok := t.freePair(s, port&1); ok {
			b.Addresses, b.port = []packet.Addr{a}, low
			return b, nil
		}
	}
	return b, ErrNoPort
}

// pairTries bounds the search for a pair, each try of which looks through the free ports.
const pairTries = 32

// freePair finds two free ports beside each other, as unforeseeable as pick does.
func (t *Table) freePair(s *space, parity uint16) (low uint16, ok bool) {
	for try := 0; try < pairTries && s.free > 0; try++ {
		low = s.pool[t.random(s.free)]
		if low&1 == parity && low < math.MaxUint16 && slices.Contains(s.pool[:s.free], low+1) && !t.held(s, low) && !t.held(s, low+1) {
			return low, true
		}
	}
	return 0, false
}

// take takes one port, false when it is not free.
func (s *space) take(port uint16) bool {
	i := slices.Index(s.pool[:s.free], port)
	if i < 0 {
		return false
	}
	s.free--
	s.pool[i], s.pool[s.free] = s.pool[s.free], s.pool[i]
	return true
}
