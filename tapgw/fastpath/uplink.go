package fastpath

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// AttachTAP starts the fast path of outbound packets, in place of another TAP's; on the same again it does nothing. The
// device must be in the thread's network namespace, as with all that attach.
func (p *Programs) AttachTAP(index int) error {
	return p.whileOpen(func() error {
		if p.tap == index {
			return nil
		}
		p.tap = 0
		p.shared.everyUplink(func(w *uplinkWords) { w.tap.Store(uint32(index)) })
		if err := p.replace(place{program: tapEgress}, index, ebpf.AttachTCXEgress, p.egress); err != nil {
			return err
		}
		p.tap = index
		return nil
	})
}

// AttachUpcall makes a device the one by which packets come to Go and go back, in place of another; on the same again it
// does nothing.
func (p *Programs) AttachUpcall(index int) error {
	return p.whileOpen(func() error {
		if p.upcallIndex == index {
			return nil
		}
		p.upcallIndex = 0
		if err := p.replace(place{program: upcallIngress}, index, ebpf.AttachTCXIngress, p.upcall); err != nil {
			return err
		}
		p.shared.everyUplink(func(w *uplinkWords) { w.upcall.Store(uint32(index)) })
		p.upcallIndex = index
		return nil
	})
}

// AttachUplink starts the fast path of replies that come in by a device, in place of what was attached for the uplink
// before.
func (p *Programs) AttachUplink(id uint8, index int, headerless bool) error {
	if err := checkID(id); err != nil {
		return err
	}
	return p.whileOpen(func() error {
		program, err := p.ingressFor(id, headerless)
		if err != nil {
			return explain(err)
		}
		defer program.Close() // its link holds it
		return p.replace(place{uplinkIngress, int(id)}, index, ebpf.AttachTCXIngress, program)
	})
}

// DetachUplink ends the fast path of an uplink's replies; nothing when there is none.
func (p *Programs) DetachUplink(id uint8) error { return p.detach(place{uplinkIngress, int(id)}) }

// AttachLAN lets packets of sessions whose hop is this device bypass the host's forwarding. Attaching again does nothing.
func (p *Programs) AttachLAN(index int) error {
	return p.whileOpen(func() error {
		if at := (place{lanIngress, index}); p.attached[at] == nil {
			return p.replace(at, index, ebpf.AttachTCXIngress, p.lan)
		}
		return nil
	})
}

// DetachLAN ends that; nothing when it was not so.
func (p *Programs) DetachLAN(index int) error { return p.detach(place{lanIngress, index}) }

// LANProgram identifies the program of AttachLAN to the kernel.
func (p *Programs) LANProgram() (id ebpf.ProgramID, err error) {
	err = p.whileOpen(func() error {
		info, err := p.lan.Info()
		if err != nil {
			return fmt.Errorf("fastpath: identify %s: %w", lanIngress, err)
		}
		id, _ = info.ID()
		return nil
	})
	return id, err
}

// place is where a program can be attached: of uplinks and devices of the LAN there are several.
type place struct {
	program string
	number  int // uplink ID, or interface index
}

// replace attaches a program and then detaches what was in its place.
func (p *Programs) replace(at place, index int, where ebpf.AttachType, program *ebpf.Program) error {
	l, err := attach(program, index, where)
	if err != nil {
		return fmt.Errorf("fastpath: attach %s to device %d: %w", at.program, index, err)
	}
	old := p.attached[at]
	p.attached[at] = l
	if old != nil {
		return old.Close()
	}
	return nil
}

func (p *Programs) detach(at place) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.attached[at]
	if l == nil {
		return nil
	}
	delete(p.attached, at)
	return l.Close()
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
