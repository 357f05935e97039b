package nat

import "tapgw/internal/packet"

// Reservation is a mapping that is kept without a session, so that its outside endpoint can be told to a remote. On a port
// with a reservation no other mapping is put.
type Reservation struct {
	Outside     packet.Addr
	OutsidePort uint16
	mapping     uint32
}

// maxReserved is how many reservations a mapping may have.
const maxReserved = 255

// Reserve gives an inside endpoint, TCP or UDP, its mapping on the uplink of b until Cancel. Errors: ErrTableFull, ErrNoPort,
// ErrBinding, ErrHostPorts.
func (t *Table) Reserve(proto uint8, inside packet.Addr, port uint16, b Binding, now Tick) (Reservation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reserve(proto, inside, port, b, now)
}

func (t *Table) reserve(proto uint8, inside packet.Addr, port uint16, b Binding, now Tick) (Reservation, error) {
	if b.IsEmpty() || b.Generation > MaxGeneration || proto != protoTCP && proto != protoUDP {
		return Reservation{}, ErrBinding
	}
	n, err := t.mappingFor(Key{Proto: proto, Inside: inside, InsidePort: port}, b, now)
	if err != nil {
		return Reservation{}, err
	}
	m := t.mapping(n)
	if m.reserved == maxReserved || !m.computed && t.mappingOn(m.uplink, m.proto, m.outside, m.outsidePort) != n {
		t.leave(n, unused, now) // a port that is shared cannot be told from outside
		return Reservation{}, ErrNoPort
	}
	m.reserved++
	return Reservation{Outside: m.outside, OutsidePort: m.outsidePort, mapping: n}, nil
}

// Cancel gives a reservation up. Its port rests when nothing else uses it, as the remote may still speak to it.
func (t *Table) Cancel(r Reservation, now Tick) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel(r, now)
}

func (t *Table) cancel(r Reservation, now Tick) {
	t.mapping(r.mapping).reserved--
	t.leave(r.mapping, abandoned, now)
}

// EndHelp makes a session an ordinary one, which no helper needs to see any more.
func (t *Table) EndHelp(r Ref) { t.records[r].own.And(^uint64(ownHelped)) }
