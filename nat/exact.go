package nat

// takeExact takes the port of k itself at the one address of b, which is its inside host's alone. Such a port needs no rest (RFC
// 6888 REQ-8 exempts it). It can be another's, or rest, for a while after the address was one of the pool.
func (t *Table) takeExact(k Key, b Binding, m uint32, now Tick) (*space, uint16, error) {
	s, port := t.spaceOf(b.Uplink, k.Proto, b.Addresses[0]), k.InsidePort
	s.wake(now)
	if s.words[port].Load() != portFree {
		return nil, 0, ErrNoPort
	}
	s.words[port].Store(portMapped | pooledBit | m)
	s.mappings++
	return s, port, nil
}

// earlier returns the mapping that k's endpoint has at the address of an exact b since before it went elsewhere, 0 for none.
func (t *Table) earlier(k Key, b Binding) uint32 {
	if !b.Exact {
		return 0
	}
	n := t.mappingOn(b.Uplink, k.Proto, b.Addresses[0], k.InsidePort)
	if m := t.mapping(n); n == 0 || m.inside != k.Inside || m.insidePort != k.InsidePort || !t.joinable(n, k, b) {
		return 0
	}
	return n
}

// mayOffer reports whether there may be one more session that a remote opens and the inside has not answered.
func (t *Table) mayOffer(k Key, b Binding) bool {
	var n uint32
	if b.isComputed() {
		n, _ = t.endpoint(k)
	} else {
		n = t.mappingOn(b.Uplink, k.Proto, b.Addresses[0], k.InsidePort)
	}
	return t.peers.offered < t.maxOffered() && (n == 0 || int(t.mapping(n).offered) < t.maxOfferedTo())
}
