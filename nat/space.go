package nat

import (
	"slices"
	"sync/atomic"

	"tapgw/internal/packet"
)

// space is the ports of one outside address and protocol on one uplink.
type space struct {
	proto   uint8
	outside packet.Addr
	words   []atomic.Uint32 // by port; written under the table's lock, read by anyone
	shared  int             // number of the array of Memory.Ports that words are, −1 for none

	// pool is a permutation of the ports that may be given out; the first free of them are free.
	pool []uint16
	free int
	// resting is a ring of resting ports, oldest first: all rest equally long.
	resting     []uint16
	first, rest int

	mappings int
}

func (t *Table) findSpace(uplink, proto uint8, outside packet.Addr) *space {
	list := t.spaces[uplink].Load()
	if list == nil {
		return nil
	}
	for _, s := range *list {
		if s.proto == proto && s.outside == outside {
			return s
		}
	}
	return nil
}

// isTransport reports whether a protocol has ports, of which the host has some too; all others have identifiers.
func isTransport(proto uint8) bool { return proto == protoTCP || proto == protoUDP }

// spaceOf is findSpace that makes what is missing.
func (t *Table) spaceOf(uplink, proto uint8, outside packet.Addr) *space {
	if s := t.findSpace(uplink, proto, outside); s != nil {
		return s
	}
	s := &space{proto: proto, outside: outside}
	s.words, s.shared = t.portWords(proto)
	if isTransport(proto) {
		s.pool = slices.Clone(t.ports)
		s.resting = make([]uint16, len(s.pool))
	} else {
		s.pool = make([]uint16, 0, allPorts)
		for i := range allPorts {
			s.pool = append(s.pool, uint16(i))
		}
		if !isICMP(proto) {
			s.pool = s.pool[1:] // 0 stands for no identifier
		}
	}
	s.free = len(s.pool)
	var list []*space
	if old := t.spaces[uplink].Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = append(list, s)
	t.spaces[uplink].Store(&list)
	return s
}

// dropSpaces forgets those addresses of an uplink that match and that no mapping uses.
func (t *Table) dropSpaces(uplink uint8, match func(outside packet.Addr) bool) {
	old := t.spaces[uplink].Load()
	if old == nil {
		return
	}
	var kept []*space
	for _, s := range *old {
		if s.mappings > 0 || !match(s.outside) {
			kept = append(kept, s)
		} else if s.shared >= 0 {
			t.freeArrays = append(t.freeArrays, s.shared)
		}
	}
	t.spaces[uplink].Store(&kept)
}

// portWords takes an array of the shared memory as long as there is one, as a kernel program must know which TCP and UDP
// ports are ours.
func (t *Table) portWords(proto uint8) (words []atomic.Uint32, array int) {
	last := len(t.freeArrays) - 1
	if !isTransport(proto) || last < 0 {
		return make([]atomic.Uint32, allPorts), -1
	}
	array, t.freeArrays = t.freeArrays[last], t.freeArrays[:last]
	words = elements[atomic.Uint32](t.cfg.Memory.Ports[array*PortArrayBytes:], allPorts)
	for i := range words {
		words[i].Store(portFree)
	}
	return words, array
}

// NoPorts and WholeAddress stand for an array in PortArrays: there was none left; and all that is sent to the address is ours,
// whatever the protocol.
const (
	NoPorts      = -1
	WholeAddress = -2
)

// PortArrays says which arrays of Memory.Ports hold the words of an outside address, or one of the above.
type PortArrays struct {
	Outside  packet.Addr
	TCP, UDP int
}

// Prepare makes the port arrays of an uplink's addresses before their first mapping, and returns where they are. Call it
// after Purge.
func (t *Table) Prepare(uplink uint8, addresses []packet.Addr) (arrays []PortArrays) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range addresses {
		arrays = append(arrays, PortArrays{a, t.spaceOf(uplink, protoTCP, a).shared, t.spaceOf(uplink, protoUDP, a).shared})
	}
	return arrays
}
