package fastpath

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tapgw/nat"
)

// Names in the C program.
const (
	tapEgress         = "tap_egress"
	uplinkIngress     = "uplink_ingress"
	uplinkIngressBare = "uplink_ingress_headerless"
)

// Programs are the loaded programs and the memory they share with Go. Methods may be called from any goroutine.
type Programs struct {
	spec   *ebpf.CollectionSpec // with cfg's constants
	maps   map[string]*ebpf.Map // shared by all programs
	shared mapped
	egress *ebpf.Program
	tap    int // interface index

	mu       sync.Mutex // guards what follows
	links    []link.Link
	attached map[uint8]*attachment
	closed   bool
}

// attachment is an uplink's ingress program, which is loaded for it alone: its ID is a constant in it.
type attachment struct {
	program *ebpf.Program
	link    link.Link
}

func (a *attachment) close() error {
	return errors.Join(a.link.Close(), a.program.Close())
}

// Load makes the arrays and programs, attached to nothing yet. Errors: ErrPermission, ErrUnsupported, ErrRefused,
// ErrMemory.
func Load(cfg Config) (*Programs, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	spec, err := prepare(cfg)
	if err != nil {
		return nil, fmt.Errorf("fastpath: read the programs: %w", err)
	}
	p := &Programs{spec: spec, tap: cfg.TAP.Index, maps: map[string]*ebpf.Map{}, attached: map[uint8]*attachment{}}
	if err := p.load(); err != nil {
		return nil, errors.Join(explain(err), p.Close())
	}
	return p, nil
}

// prepare sets the sizes and constants of the programs.
func prepare(cfg Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadFastpath()
	if err != nil {
		return nil, err
	}
	sizes := nat.SizesFor(cfg.MaxSessions)
	buckets := uint32(sizes.Buckets)
	spec.Maps[fastpathMapIndexOut].MaxEntries, spec.Maps[fastpathMapIndexIn].MaxEntries = buckets, buckets
	for _, name := range []string{fastpathMapRecords, fastpathMapCountsOut, fastpathMapCountsIn} {
		spec.Maps[name].MaxEntries = uint32(sizes.Records)
	}
	return spec, setConstants(spec, map[string]any{
		"seed0": cfg.Seed[0], "seed1": cfg.Seed[1], "buckets": buckets, "tick_offset": cfg.TickOffset,
		"tap_ifindex": uint32(cfg.TAP.Index), "tap_mac": cfg.TAP.MAC, "gateway_mac": cfg.TAP.GatewayMAC,
	})
}

func setConstants(spec *ebpf.CollectionSpec, constants map[string]any) error {
	for name, value := range constants {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("no constant %s", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("constant %s: %w", name, err)
		}
	}
	return nil
}

func (p *Programs) load() error {
	for _, name := range []string{
		fastpathMapIndexOut, fastpathMapIndexIn, fastpathMapRecords, fastpathMapCountsOut, fastpathMapCountsIn, fastpathMapUplinks,
	} {
		m, err := ebpf.NewMap(p.spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make the array %s: %w", name, err)
		}
		p.maps[name] = m
	}
	if err := p.shared.mapAll(p.maps); err != nil {
		return err
	}
	var err error
	p.egress, err = p.program(p.spec, tapEgress)
	if err == nil { // so that a refusal is known before the first uplink
		var probe *ebpf.Program
		if probe, err = p.program(p.spec, uplinkIngress); err == nil {
			err = probe.Close()
		}
	}
	return err
}

// program loads one program on the shared arrays.
func (p *Programs) program(spec *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	spec = spec.Copy()
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: p.maps})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// ingressFor loads the program that handles what comes in by an uplink.
func (p *Programs) ingressFor(id uint8, headerless bool) (*ebpf.Program, error) {
	spec, name := p.spec.Copy(), uplinkIngress
	if headerless {
		name = uplinkIngressBare
	}
	if err := setConstants(spec, map[string]any{"uplink_id": uint32(id)}); err != nil {
		return nil, err
	}
	return p.program(spec, name)
}

// Close detaches the programs and unmaps the memory, which must no longer be used. Closing twice is harmless.
func (p *Programs) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	for _, a := range p.attached {
		errs = append(errs, a.close())
	}
	if p.egress != nil {
		errs = append(errs, p.egress.Close())
	}
	errs = append(errs, p.shared.unmap())
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
