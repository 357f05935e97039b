package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

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
	generation, flags, ifindex, gateway, mtu atomic.Uint32

	tap, upcall atomic.Uint32
	mac         [6]byte
	_           uint16
	rerouted    atomic.Uint32
	clock       atomic.Uint64
}

// hopWords is struct hop of table.h.
type hopWords struct {
	ifindex, gateway, mtu atomic.Uint32
	_                     uint32
}

// addressWords is struct addresses of table.h.
type addressWords struct {
	count atomic.Uint32
	_     uint32
	list  [MaxAddresses]struct{ addr, tcp, udp atomic.Uint32 }
}

// serviceWords is struct services of table.h.
type serviceWords [1 << 16 / 64]atomic.Uint64

// array is shared memory as elements of a type.
func array[T any](b []byte) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(one)))
}

func (m *mapped) uplink(id uint8) *uplinkWords { return &array[uplinkWords](m.uplinks)[id] }

// everyUplink does the same to the words of all uplinks.
func (m *mapped) everyUplink(do func(*uplinkWords)) {
	for id := range uint8(uplinks.MaxUplinks) {
		do(m.uplink(id))
	}
}

func networkOrder(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

// SetUplink tells the kernel what an uplink is now; it takes effect with the next packet. While it is written the uplink is
// of no use, so that hardly a packet leaves by a half-written one: only those that were looked up just before.
func (p *Programs) SetUplink(id uint8, u Uplink) error {
	if err := checkID(id); err != nil {
		return err
	}
	gateway, err := u.check()
	if err != nil {
		return err
	}
	return p.whileOpen(func() error {
		if p.known[id] == u { // hits need not stop for nothing
			return nil
		}
		p.known[id] = u
		w := p.shared.uplink(id)
		w.flags.Store(w.flags.Load() &^ (flagUsable | flagReady))
		w.generation.Store(u.Generation)
		w.ifindex.Store(uint32(u.Index))
		w.gateway.Store(gateway)
		w.mtu.Store(uint32(u.MTU))
		w.mac = u.MAC
		w.flags.Store(u.flags())
		return nil
	})
}

// check returns the next hop of a possible uplink.
func (u *Uplink) check() (gateway uint32, err error) {
	if (u.Usable || u.Ready) && (u.Index <= 0 || u.MTU <= 0) {
		return 0, fmt.Errorf("%w: usable with interface index %d and MTU %d", ErrUplink, u.Index, u.MTU)
	}
	return nextHop(u.Gateway)
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

// SetAddresses tells the kernel which outside addresses an uplink has, and where their ports are: without an array Go gets
// all packets to an address, and judges. Packets to other addresses, and to those beyond MaxAddresses, are the host's.
func (p *Programs) SetAddresses(id uint8, list []nat.PortArrays) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error { return p.setAddresses(id, list) })
}

// AddAddresses has Go judge all packets to further outside addresses of an uplink, until SetAddresses says where their ports
// are.
func (p *Programs) AddAddresses(id uint8, outside []packet.Addr) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error {
		list := slices.Clone(p.addresses[id])
		for _, addr := range outside {
			if !slices.ContainsFunc(list, func(a nat.PortArrays) bool { return a.Outside == addr }) {
				list = append(list, nat.PortArrays{Outside: addr, TCP: -1, UDP: -1})
			}
		}
		return p.setAddresses(id, list)
	})
}

func (p *Programs) setAddresses(id uint8, list []nat.PortArrays) error {
	if slices.Equal(p.addresses[id], list) {
		return nil
	}
	p.addresses[id] = nil // not all known until the end
	w := &array[addressWords](p.shared.outside)[id]
	if err := p.setOwn(id, list); err != nil {
		return err
	}
	list = list[:min(len(list), MaxAddresses)]
	for i, a := range list {
		w.list[i].tcp.Store(uint32(a.TCP)) // −1 is NO_PORTS, −2 WHOLE_ADDRESS
		w.list[i].udp.Store(uint32(a.UDP))
		w.list[i].addr.Store(a.Outside.V4())
	}
	w.count.Store(uint32(len(list)))
	p.addresses[id] = slices.Clone(list)
	return nil
}

// setOwn has packets with these sources leave by the uplink as they are, and none with those it had before.
func (p *Programs) setOwn(id uint8, list []nat.PortArrays) error {
	own := p.maps[fastpathMapOwn]
	for _, a := range p.own[id] {
		if err := own.Delete(a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("fastpath: forget an address of uplink %d: %w", id, err)
		}
	}
	p.own[id] = nil
	if err := p.noteOwn(id, list); err != nil {
		return err
	}
	for other, theirs := range p.addresses { // what was of both is theirs alone now
		if err := p.noteOwn(uint8(other), theirs); err != nil {
			return err
		}
	}
	return nil
}

// noteOwn notes those addresses of an uplink that no other one had first.
func (p *Programs) noteOwn(id uint8, list []nat.PortArrays) error {
	for _, a := range list {
		err := p.maps[fastpathMapOwn].Update(a.Outside.V4(), uint32(id), ebpf.UpdateNoExist)
		if errors.Is(err, ebpf.ErrKeyExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("fastpath: note an address of uplink %d: %w", id, err)
		}
		p.own[id] = append(p.own[id], a.Outside.V4())
	}
	return nil
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

// SetHops replaces the ways to the LAN: hop i+1 of a session is hops[i]. While they change, and where the index is 0,
// packets take the way through the host's stack, in both directions.
func (p *Programs) SetHops(hops []Hop) error {
	gateways := make([]uint32, len(hops))
	for i, h := range hops {
		var err error
		if gateways[i], err = nextHop(h.Gateway); err != nil {
			return err
		}
	}
	if len(hops) > MaxHops {
		return fmt.Errorf("%w: %d hops, at most %d are allowed", ErrUplink, len(hops), MaxHops)
	}
	return p.whileOpen(func() error {
		words := array[hopWords](p.shared.hops)
		for i := range words {
			words[i].ifindex.Store(0)
		}
		for i, h := range hops {
			w := &words[i+1]
			w.gateway.Store(gateways[i])
			w.mtu.Store(uint32(h.MTU))
			w.ifindex.Store(uint32(h.Index))
		}
		return nil
	})
}
