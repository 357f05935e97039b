package fastpath

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tapgw/uplinks"
)

// Flags of uplinkWords, as in table.h.
const (
	flagUsable = 1 << iota
	flagHeaderLess
)

// uplinkWords is struct uplink of table.h.
type uplinkWords struct {
	generation, flags, ifindex, gateway, mtu atomic.Uint32
	_                                        [3]uint32
}

// SetUplink tells the kernel what an uplink is now; it takes effect with the next packet. A new generation or an uplink
// that is not usable is published first, so that no packet leaves by a half-written uplink that had been usable before.
func (p *Programs) SetUplink(id uint8, u Uplink) error {
	if err := checkID(id); err != nil {
		return err
	}
	gateway, err := u.nextHop()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	w := &unsafe.Slice((*uplinkWords)(unsafe.Pointer(unsafe.SliceData(p.shared.uplinks))), uplinks.MaxUplinks)[id]
	w.flags.Store(0)
	w.generation.Store(u.Generation)
	w.ifindex.Store(uint32(u.Index))
	w.gateway.Store(gateway)
	w.mtu.Store(uint32(u.MTU))
	w.flags.Store(u.flags())
	return nil
}

// nextHop is the gateway in network order.
func (u *Uplink) nextHop() (uint32, error) {
	switch {
	case u.Usable && (u.Index <= 0 || u.MTU <= 0):
		return 0, fmt.Errorf("%w: usable with interface index %d and MTU %d", ErrUplink, u.Index, u.MTU)
	case !u.Gateway.IsValid():
		return 0, nil
	case !u.Gateway.Unmap().Is4():
		return 0, fmt.Errorf("%w: the gateway %v is not an IPv4 address", ErrUplink, u.Gateway)
	}
	a := u.Gateway.Unmap().As4()
	return binary.NativeEndian.Uint32(a[:]), nil
}

func (u *Uplink) flags() (flags uint32) {
	if u.Usable {
		flags |= flagUsable
	}
	if u.HeaderLess {
		flags |= flagHeaderLess
	}
	return flags
}

// AttachTAP starts the fast path of outbound packets. The TAP must be in the thread's network namespace.
func (p *Programs) AttachTAP() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	l, err := attach(p.egress, p.tap, ebpf.AttachTCXEgress)
	if err != nil {
		return fmt.Errorf("fastpath: attach to the TAP: %w", err)
	}
	p.links = append(p.links, l)
	return nil
}

// AttachUplink starts the fast path of replies that come in by a device, in place of what was attached for the uplink
// before. The device must be in the thread's network namespace.
func (p *Programs) AttachUplink(id uint8, index int, headerless bool) error {
	if err := checkID(id); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	program, err := p.ingressFor(id, headerless)
	if err != nil {
		return explain(err)
	}
	l, err := attach(program, index, ebpf.AttachTCXIngress)
	if err != nil {
		program.Close()
		return fmt.Errorf("fastpath: attach to uplink %d: %w", id, err)
	}
	old := p.attached[id]
	p.attached[id] = &attachment{program: program, link: l}
	if old != nil {
		return old.close()
	}
	return nil
}

// DetachUplink ends the fast path of an uplink's replies; nothing when there is none.
func (p *Programs) DetachUplink(id uint8) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.attached[id]
	if a == nil {
		return nil
	}
	delete(p.attached, id)
	return a.close()
}

// attach puts a program before all others: what it takes is nobody else's.
func attach(program *ebpf.Program, index int, where ebpf.AttachType) (link.Link, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: where, Anchor: link.Head()})
	return l, explain(err)
}
