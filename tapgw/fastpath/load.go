package fastpath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// Names in the C program.
const (
	tapEgress         = "tap_egress"
	uplinkIngress     = "uplink_ingress"
	uplinkIngressBare = "uplink_ingress_headerless"
	lanIngress        = "lan_ingress"
	upcallIngress     = "upcall_ingress"
)

// How many arrays of ports the kernel can see: two for each outside address, 256 KiB each. Of IPv6 an uplink has seldom more than
// one or two addresses that last.
const (
	portArrays   = 16
	portArraysV6 = 8
)

// Programs are the loaded programs and the memory they share with Go. Methods may be called from any goroutine.
type Programs struct {
	spec                *ebpf.CollectionSpec // with the constants
	types               *btf.Spec            // of the kernel, nil for reading them when they are needed
	maps                map[string]*ebpf.Map // shared by all programs
	shared              mapped
	egress, lan, upcall *ebpf.Program

	mu        sync.Mutex // guards what follows
	closed    bool
	ingresses map[variant]*ebpf.Program // loaded when first attached, and kept
	ids       map[*ebpf.Program]ebpf.ProgramID
	attached  map[place]attached
	sides     [len(uplinks.Families)][uplinks.MaxUplinks]side
	prefixes  []netip.Prefix
}

// side is an uplink's side to a family as the programs know it.
type side struct {
	uplink    Uplink
	own       []packet.Addr // those in the map of that name
	addresses []nat.PortArrays
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
	p := &Programs{spec: spec, maps: map[string]*ebpf.Map{}, ingresses: map[variant]*ebpf.Program{}, ids: map[*ebpf.Program]ebpf.ProgramID{}, attached: map[place]attached{}}
	forget := p.readTypes()
	defer forget()
	if err := p.load(); err != nil {
		return nil, errors.Join(explain(err), p.Close(), p.shared.unmap())
	}
	return p, nil
}

// readTypes reads the kernel's types once for all programs, as there are many, until forget is called. Where the kernel has none,
// what needs them is dead code, and any will do.
func (p *Programs) readTypes() (forget func()) {
	types, err := btf.LoadKernelSpec()
	if errors.Is(err, ebpf.ErrNotSupported) {
		p.types = p.spec.Types
		return func() {}
	}
	p.types = types
	return func() { p.types = nil }
}

// prepare sets the sizes and constants of the programs.
func prepare(cfg Config) (*ebpf.CollectionSpec, error) {
	spec, err := loadFastpath()
	if err != nil {
		return nil, err
	}
	buckets := resize(spec, "", cfg.MaxSessions)
	buckets6 := resize(spec, "6", cfg.MaxSessionsV6)
	return spec, setConstants(spec, map[string]any{
		"seed0": cfg.Seed[0], "seed1": cfg.Seed[1], "buckets": buckets, "buckets6": buckets6,
		"tap_mac": cfg.TAPMAC, "gateway_mac": cfg.GatewayMAC, "upcall_mac": cfg.UpcallMAC, "secret": cfg.Secret,
	})
}

// resize gives the arrays of a family, whose names end alike, room for so many sessions, and returns the number of buckets.
func resize(spec *ebpf.CollectionSpec, suffix string, maxSessions int) (buckets uint32) {
	if maxSessions == 0 {
		return 0
	}
	sizes, ports := nat.SizesFor(maxSessions), portArrays
	if suffix != "" {
		ports = portArraysV6
		spec.Maps[fastpathMapWide6].MaxEntries = uint32(sizes.Records)
	}
	for name, n := range map[string]int{
		fastpathMapIndexOut: sizes.Buckets, fastpathMapIndexIn: sizes.Buckets, fastpathMapPortWords: ports,
		fastpathMapRecords: sizes.Records, fastpathMapCountsOut: sizes.Records, fastpathMapCountsIn: sizes.Records,
	} {
		spec.Maps[name+suffix].MaxEntries = uint32(n)
	}
	return uint32(sizes.Buckets)
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

func (p *Programs) load() (err error) {
	for name, spec := range p.spec.Maps {
		if strings.HasPrefix(name, ".") { // constants, which each program has its own of
			continue
		}
		if p.maps[name], err = ebpf.NewMap(spec); err != nil {
			return fmt.Errorf("make the array %s: %w", name, err)
		}
	}
	if err := p.shared.mapAll(p.maps); err != nil {
		return err
	}
	for name, at := range map[string]**ebpf.Program{tapEgress: &p.egress, lanIngress: &p.lan, upcallIngress: &p.upcall} {
		if *at, err = p.program(p.spec, name); err != nil {
			return err
		}
	}
	return p.rehearse()
}

// rehearse lets a refusal be known before the first uplink.
func (p *Programs) rehearse() error {
	for _, headerless := range []bool{false, true} {
		if _, err := p.ingressFor(variant{0, headerless}); err != nil {
			return err
		}
	}
	return nil
}

// program loads one program on the shared arrays.
func (p *Programs) program(spec *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	spec = spec.Copy()
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: p.maps, Programs: ebpf.ProgramOptions{KernelTypes: p.types},
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// variant is what a program that handles what comes in by an uplink is made for.
type variant struct {
	uplink     uint8
	headerless bool
}

// ingressFor loads a variant once: that takes the verifier long enough for a device's packets to notice.
func (p *Programs) ingressFor(v variant) (*ebpf.Program, error) {
	if program := p.ingresses[v]; program != nil {
		return program, nil
	}
	program, err := p.loadIngress(v)
	if err == nil {
		p.ingresses[v] = program
	}
	return program, err
}

func (p *Programs) loadIngress(v variant) (*ebpf.Program, error) {
	spec, name := p.spec.Copy(), uplinkIngress
	if v.headerless {
		name = uplinkIngressBare
	}
	if err := setConstants(spec, map[string]any{"uplink_id": uint32(v.uplink)}); err != nil {
		return nil, err
	}
	return p.program(spec, name)
}

// Detach ends the fast path for good: packets go the ways that they would go without.
func (p *Programs) Detach() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for at, a := range p.attached {
		errs = append(errs, a.link.Close())
		delete(p.attached, at)
	}
	return errors.Join(errs...)
}

// Close detaches the programs and frees them. The memory stays mapped for as long as the process lives, as somebody may
// still read the table. Closing twice is harmless.
func (p *Programs) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	errs := []error{p.Detach()}
	for _, program := range append(slices.Collect(maps.Values(p.ingresses)), p.egress, p.lan, p.upcall) {
		errs = append(errs, program.Close())
	}
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
