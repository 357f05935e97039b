package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tapgw/internal/lab"
)

// programs are BPF programs of bench.bpf.c with their variables, and where they are attached.
type programs struct {
	*ebpf.Collection
	links []link.Link
}

// loadPrograms loads the named programs for a family, with their constants.
func loadPrograms(f *family, constants map[string]any, names ...string) (*programs, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["ipv6"].Set(f.flag()); err != nil {
		return nil, fmt.Errorf("constant ipv6: %w", err)
	}
	for name, value := range constants {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("constant %s: %w", name, err)
		}
	}
	for name := range spec.Programs {
		if !slices.Contains(names, name) {
			delete(spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load the benchmark's programs (needs root and BPF): %w", err)
	}
	return &programs{Collection: c}, nil
}

// attach runs a program on everything that a device receives.
func (p *programs) attach(name string, ns *lab.Namespace, device string) error {
	index, err := ns.Index(device)
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p.Programs[name], Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return fmt.Errorf("attach %s to %s (needs Linux 6.6): %w", name, device, err)
		}
		p.links = append(p.links, l)
		return nil
	})
}

func (p *programs) close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.Close()
	return errors.Join(errs...)
}
