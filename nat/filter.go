package nat

import (
	"errors"

	"tapgw/internal/packet"
)

// Filter says which remotes that have no session a mapping lets in (RFC 4787 §5).
type Filter uint8

// The filters, the strictest first.
const (
	AddressAndPortDependent Filter = iota // none: only endpoints that the inside endpoint has sent to
	AddressDependent                      // those at addresses that it has sent to
	EndpointIndependent                   // all
)

// Filtering is the filter of each protocol that has any choice; all else is filtered by address and port.
type Filtering struct{ UDP, TCP Filter }

// DefaultFiltering favours what RFC 4787 REQ-8 recommends for transparency over UDP, where calls and games need it, and
// what RFC 5382 REQ-3 allows for more safety over TCP, where a listening port is a service.
var DefaultFiltering = Filtering{UDP: EndpointIndependent, TCP: AddressDependent}

// ErrFiltered is what OpenIn says of a packet that must not come in.
var ErrFiltered = errors.New("nat: no mapping, or its filter does not let this remote in")

// SetFiltering changes the filters for sessions that remotes open from now on.
func (t *Table) SetFiltering(f Filtering) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.peers.follows
	t.filter[0].Store(uint32(f.UDP))
	t.filter[1].Store(uint32(f.TCP))
	t.peers.follows = [2]bool{f.UDP == AddressDependent, f.TCP == AddressDependent}
	if t.peers.follows != before {
		t.countPeers()
	}
}

// FilterOf is the filter of a protocol.
func (t *Table) FilterOf(proto uint8) Filter {
	n, ok := filtered(proto)
	if !ok {
		return AddressAndPortDependent
	}
	return Filter(t.filter[n].Load())
}

// filtered numbers the protocols of Filtering.
func filtered(proto uint8) (n int, ok bool) {
	switch proto {
	case protoUDP:
		return 0, true
	case protoTCP:
		return 1, true
	}
	return 0, false
}

// Inside returns whose an outside endpoint is; false when it is nobody's, or that of several who share a port.
func (t *Table) Inside(k InKey) (addr packet.Addr, port uint16, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.mappingOn(k.Uplink, k.Proto, k.Outside, k.OutsidePort)
	m := t.mapping(n)
	return m.inside, m.insidePort, n != 0
}

// OpenIn makes the session of a packet that a remote sent to a mapping without one, in the state Offered: it ends soon
// unless the inside answers, and until then keeps no mapping alive (RFC 7857 §7). Where there is a session already, that one
// is returned. The caller has seen to it that a TCP packet is a SYN. Errors: ErrFiltered, and those of Open.
func (t *Table) OpenIn(k InKey, b Binding, now Tick) (Ref, error) {
	filter := t.FilterOf(k.Proto)
	if filter == AddressAndPortDependent {
		return 0, ErrFiltered
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.FindIn(k); r != 0 {
		return r, nil
	}
	m := t.mappingOn(k.Uplink, k.Proto, k.Outside, k.OutsidePort)
	if m == 0 || !t.admits(m, k, b, filter) {
		return 0, ErrFiltered
	}
	r, err := t.join(m, k, b, Offered, now)
	if errors.Is(err, ErrNoMapping) {
		return 0, ErrFiltered
	}
	if err != nil {
		t.stats.refused(err)
	}
	return r, err
}

// admits reports whether mapping n, which must be in use by the inside, lets a remote in.
func (t *Table) admits(n uint32, k InKey, b Binding, filter Filter) bool {
	m := t.mapping(n)
	switch {
	case b.Uplink != k.Uplink, m.generation != b.Generation, m.sessions == uint32(m.offered)+uint32(m.reserved):
		return false
	case t.peers.offered >= t.maxOffered(), int(m.offered) >= t.maxOfferedTo():
		return false
	}
	return filter == EndpointIndependent || t.spoke(n, k.Remote)
}
