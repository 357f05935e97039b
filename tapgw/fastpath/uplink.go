package fastpath

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// AttachTAP starts the fast path of outbound packets, in place of another TAP's; on the same again it does nothing. The
// device must be in the thread's network namespace, as with all that attach.
func (p *Programs) AttachTAP(index int) error {
	return p.whileOpen(func() error {
		p.shared.everyUplink(func(w *uplinkWords) { w.tap.Store(uint32(index)) })
		return p.attach(place{program: tapEgress}, device{index: index}, p.egress)
	})
}

// AttachUpcall makes a device the one by which packets come to Go and go back, in place of another; on the same again it
// does nothing.
func (p *Programs) AttachUpcall(index int) error {
	return p.whileOpen(func() error {
		if err := p.attach(place{program: upcallIngress}, device{index: index}, p.upcall); err != nil {
			return err
		}
		p.shared.everyUplink(func(w *uplinkWords) { w.upcall.Store(uint32(index)) })
		return nil
	})
}

// AttachUplink starts the fast path of replies that come in by a device, in place of what was attached for the uplink
// before; on the same again it does nothing.
func (p *Programs) AttachUplink(id uint8, index int, headerless bool) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error {
		program, err := p.ingressFor(variant{id, headerless})
		if err != nil {
			return explain(err)
		}
		return p.attach(place{uplinkIngress, int(id)}, device{index, headerless}, program)
	})
}

// DetachUplink ends the fast path of an uplink's replies; nothing when there is none.
func (p *Programs) DetachUplink(id uint8) error { return p.detach(place{uplinkIngress, int(id)}) }

// AttachLAN lets packets of sessions whose hop is this device bypass the host's forwarding. Attaching again does nothing.
func (p *Programs) AttachLAN(index int) error {
	return p.whileOpen(func() error { return p.attach(place{lanIngress, index}, device{index: index}, p.lan) })
}

// DetachLAN ends that; nothing when it was not so.
func (p *Programs) DetachLAN(index int) error { return p.detach(place{lanIngress, index}) }

// Verify lists the devices that somebody detached programs from, or that have gone, and forgets those programs: to attach
// them is to attach them anew.
func (p *Programs) Verify() (lost []int, err error) {
	err = p.whileOpen(func() error {
		var errs []error
		for at, a := range p.attached {
			if alive, err := a.link.alive(); alive || err != nil {
				errs = append(errs, err)
				continue
			}
			delete(p.attached, at)
			lost, errs = append(lost, a.device.index), append(errs, a.link.Close())
		}
		return errors.Join(errs...)
	})
	slices.Sort(lost)
	return slices.Compact(lost), err
}

// IDs identifies to the kernel all programs that are attached, were or may be.
func (p *Programs) IDs() (list []ebpf.ProgramID, err error) {
	err = p.whileOpen(func() error {
		for _, program := range append(slices.Collect(maps.Values(p.ingresses)), p.egress, p.lan, p.upcall) {
			id, known := p.ids[program] // to ask is slow
			if !known {
				if id, err = identify(program); err != nil {
					return err
				}
				p.ids[program] = id
			}
			list = append(list, id)
		}
		return nil
	})
	return list, err
}

func identify(program *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := program.Info()
	if err != nil {
		return 0, fmt.Errorf("fastpath: identify a program: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

// place is where a program can be attached: of uplinks and devices of the LAN there are several.
type place struct {
	program string
	number  int // uplink ID, or interface index
}

// device is where a program is attached, and what the program was made for.
type device struct {
	index      int
	headerless bool // said of uplinks only
}

type attached struct {
	device device
	link   attachment
}

// attach attaches a program unless it is there, and then detaches what was in its place.
func (p *Programs) attach(at place, to device, program *ebpf.Program) error {
	old, replaced := p.attached[at]
	if replaced && old.device == to {
		return nil
	}
	where := ebpf.AttachTCXIngress
	if at.program == tapEgress {
		where = ebpf.AttachTCXEgress
	}
	l, err := attach(program, to.index, where)
	if err != nil {
		return fmt.Errorf("fastpath: attach %s to device %d: %w", at.program, to.index, err)
	}
	p.attached[at] = attached{to, l}
	if replaced {
		return old.link.Close()
	}
	return nil
}

func (p *Programs) detach(at place) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.attached[at]
	if !ok {
		return nil
	}
	delete(p.attached, at)
	return a.link.Close()
}

// whileOpen does something that Close must not interrupt.
func (p *Programs) whileOpen(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	return do()
}
