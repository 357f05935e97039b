package fastpath

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Flags of uplinkWords, as in table.h.
const (
	flagUsable = 1 << iota
	flagHeaderLess
	flagReady
)

// uplinkWords is struct uplink of table.h.
type uplinkWords struct {
	generation, flags, ifindex, mtu atomic.Uint32

	gateway               [4]atomic.Uint32
	mac                   [6]byte
	_                     uint16
	tap, upcall, rerouted atomic.Uint32
	shortcut              atomic.Uint32
	_                     [2]uint32 // the programs' own
	clock                 atomic.Uint64
	host                  addressPair
}

// addressPair is struct addr of table.h.
type addressPair [2]atomic.Uint64

func (p *addressPair) store(a packet.Addr) {
	p[0].Store(a.Hi)
	p[1].Store(a.Lo)
}

// hopWords is struct hop of table.h.
type hopWords struct {
	ifindex, mtu atomic.Uint32
	gateway      [4]atomic.Uint32
}

// hopWordsEach is HOPS of table.h.
const hopWordsEach = 256

// addressWords is struct addresses of table.h.
type addressWords struct {
	count atomic.Uint32
	_     uint32
	list  [MaxAddresses]struct {
		addr     addressPair
		tcp, udp atomic.Uint32
	}
}

// serviceWords is struct services of table.h.
type serviceWords [1 << 16 / 64]atomic.Uint64

// array is shared memory as elements of a type.
func array[T any](b []byte) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(one)))
}

// ofFamily is the part of an array with n elements for each family that is a family's.
func ofFamily[T any](b []byte, f uplinks.Family, n int) []T { return array[T](b)[int(f)*n:][:n] }

func (m *mapped) uplink(id uint8, f uplinks.Family) *uplinkWords {
	return &ofFamily[uplinkWords](m.uplinks, f, uplinks.MaxUplinks)[id]
}

// everyUplink does the same to the words of all uplinks, of both families.
func (m *mapped) everyUplink(do func(*uplinkWords)) {
	for _, f := range uplinks.Families {
		for id := range uint8(uplinks.MaxUplinks) {
			do(m.uplink(id, f))
		}
	}
}

func storeAll(to *[4]atomic.Uint32, words [4]uint32) {
	for i := range to {
		to[i].Store(words[i])
	}
}

// SetUplink tells the kernel what an uplink is to a family now; it takes effect with the next packet. While it is written the
// uplink is of no use, so that hardly a packet leaves by a half-written one: only those that were looked up just before.
func (p *Programs) SetUplink(id uint8, f uplinks.Family, u Uplink) error {
	if err := checkID(id); err != nil {
		return err
	}
	gateway, err := u.check(f)
	if err != nil {
		return err
	}
	return p.whileOpen(func() error {
		known := &p.sides[f][id].uplink
		if *known == u { // hits need not stop for nothing
			return nil
		}
		*known = u
		w := p.shared.uplink(id, f)
		w.flags.Store(w.flags.Load() &^ (flagUsable | flagReady))
		w.generation.Store(u.Generation)
		w.ifindex.Store(uint32(u.Index))
		storeAll(&w.gateway, gateway)
		w.mtu.Store(uint32(u.MTU))
		w.mac = u.MAC
		w.flags.Store(u.flags())
		return nil
	})
}

// check returns the next hop of a possible uplink.
func (u *Uplink) check(f uplinks.Family) (gateway [4]uint32, err error) {
	if (u.Usable || u.Ready) && (u.Index <= 0 || u.MTU <= 0) {
		return gateway, fmt.Errorf("%w: usable with interface index %d and MTU %d", ErrUplink, u.Index, u.MTU)
	}
	return nextHop(f, u.Gateway)
}

func (u *Uplink) flags() (flags uint32) {
	if u.Usable {
		flags |= flagUsable
	}
	if u.HeaderLess {
		flags |= flagHeaderLess
	}
	if u.Ready {
		flags |= flagReady
	}
	return flags
}

// SetHost says for which address of a family that the host has on the TAP packets go on from the uplink; for all others, and with
// the zero Addr for all, they come by the TAP.
func (p *Programs) SetHost(f uplinks.Family, a netip.Addr) error {
	return p.whileOpen(func() error {
		for id := range uint8(uplinks.MaxUplinks) {
			p.shared.uplink(id, f).host.store(packet.AddrOf(a))
		}
		return nil
	})
}

// SetClock says what is to be added to CLOCK_MONOTONIC to make the time of which nat.TickOf makes ticks.
func (p *Programs) SetClock(offset time.Duration) error {
	return p.whileOpen(func() error {
		p.shared.everyUplink(func(w *uplinkWords) { w.clock.Store(uint64(offset)) })
		return nil
	})
}

// SetRerouted says when the host's routes may have changed: what was seen later still goes the way that it went.
func (p *Programs) SetRerouted(now nat.Tick) error {
	return p.whileOpen(func() error {
		p.shared.everyUplink(func(w *uplinkWords) { w.rerouted.Store(uint32(now)) })
		return nil
	})
}

// SetServices says on which UDP ports programs of the host listen at no address in particular: Go gets a copy of the
// first packet of each of their clients in every tick.
func (p *Programs) SetServices(ports []uint16) error {
	return p.whileOpen(func() error {
		var wanted [len(serviceWords{})]uint64
		for _, port := range ports {
			wanted[port/64] |= 1 << (port % 64)
		}
		words := &array[serviceWords](p.shared.services)[0]
		for i := range words {
			words[i].Store(wanted[i])
		}
		return nil
	})
}

// SetHops replaces the ways of a family to the LAN: hop i+1 of a session is hops[i]. While they change, where the index is 0,
// and all when there are none, packets take the way through the host's stack, in both directions.
func (p *Programs) SetHops(f uplinks.Family, hops []Hop) error {
	gateways := make([][4]uint32, len(hops))
	for i, h := range hops {
		var err error
		if gateways[i], err = nextHop(f, h.Gateway); err != nil {
			return err
		}
	}
	if len(hops) > MaxHops {
		return fmt.Errorf("%w: %d hops, at most %d are allowed", ErrUplink, len(hops), MaxHops)
	}
	return p.whileOpen(func() error {
		words := ofFamily[hopWords](p.shared.hops, f, hopWordsEach)
		for i := range words {
			words[i].ifindex.Store(0)
		}
		for i, h := range hops {
			w := &words[i+1]
			storeAll(&w.gateway, gateways[i])
			w.mtu.Store(uint32(h.MTU))
			w.ifindex.Store(uint32(h.Index))
		}
		for id := range uint8(uplinks.MaxUplinks) {
			p.shared.uplink(id, f).shortcut.Store(uint32(min(1, len(hops))))
		}
		return nil
	})
}
