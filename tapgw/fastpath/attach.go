package fastpath

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Our filters in clsact qdiscs are known after a crash by their names: one of these, a slash and the program's name. The
// second kind came with its qdisc, and the last of them takes it along.
const (
	filterPrefix           = "tapgw"
	filterPrefixWithClsact = "tapgw+clsact"
)

// firstPriority is that of filters asked before all others; of equal ones of the same kind the newest is asked first.
const firstPriority = 1

// clsactHandle is the handle that clsact and ingress qdiscs always have.
const clsactHandle = 0xffff << 16

// attachTCX is replaced where a test plays a kernel before 6.6.
var attachTCX = link.AttachTCX

// attachment is a program on a device.
type attachment interface {
	io.Closer
	// alive reports whether the program still sees the device's packets; somebody may have detached it.
	alive() (bool, error)
}

// attach puts a program before all others of a device: what it takes is nobody else's. It asks for tcx, whose links end
// with the process, and where the kernel has none for clsact, whose filters do nothing without the process but stay until
// RemoveLeftovers, or as long as the device. The device must be in the thread's network namespace; Close may be called in
// any.
func attach(program *ebpf.Program, index int, where ebpf.AttachType) (attachment, error) {
	l, err := attachTCX(link.TCXOptions{Interface: index, Program: program, Attach: where, Anchor: link.Head()})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return attachClsact(program, index, where)
	}
	if err != nil {
		return nil, explain(err)
	}
	return tcxLink{l}, nil
}

type tcxLink struct{ link.Link }

func (l tcxLink) alive() (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	return info.TCX().Ifindex != 0, nil // it is of no device once detached, or when its device has gone
}

// RemoveLeftovers removes what a killed process left attached to a device of the thread's network namespace, and tells
// whether there was any: filters in a clsact qdisc, and the qdisc when it came with them and nobody else uses it. tcx
// links leave nothing.
func RemoveLeftovers(index int) (removed bool, err error) {
	c, err := openClsact(index)
	if err != nil {
		return false, err
	}
	defer c.handle.Close()
	return c.remove(func(known) bool { return true })
}

// clsact is the filters of a device in the namespace of the thread that opened it.
type clsact struct {
	handle *netlink.Handle
	device netlink.Link
}

func openClsact(index int) (*clsact, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("fastpath: open a netlink socket: %w", err)
	}
	return &clsact{handle, &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}}, nil
}

// filter is a program attached by clsact, behind a gate.
type filter struct {
	*clsact
	parent uint32
	name   string    // of the program
	gate   int       // ID of the program in the filter
	latch  *ebpf.Map // lets the gate through
}

func attachClsact(program *ebpf.Program, index int, where ebpf.AttachType) (attachment, error) {
	info, err := program.Info()
	if err != nil {
		return nil, explain(err)
	}
	gate, latch, err := newGate(program)
	if err != nil {
		return nil, explain(err)
	}
	defer gate.Close()
	f, err := newFilter(gate, index, where)
	if err == nil {
		f.name, f.latch = info.Name, latch
		if err = f.install(gate); err == nil {
			return f, nil
		}
		f.handle.Close()
	}
	return nil, errors.Join(err, latch.Close())
}

// newGate makes a program that runs another as long as this process holds the latch, and lets all packets pass after: a
// filter outlives a killed process, and its redirects would go nowhere. The kernel empties an array of programs when its
// last descriptor closes, whereupon nothing holds the other program and its arrays any longer.
func newGate(program *ebpf.Program) (gate *ebpf.Program, latch *ebpf.Map, err error) {
	latch, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "tapgw_latch", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: program}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make the latch of a clsact filter: %w", err)
	}
	const next = -1 // TC_ACT_UNSPEC
	gate, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tapgw_gate", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMapPtr(asm.R2, latch.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call(), // the packet is in R1
		asm.Mov.Imm(asm.R0, next), asm.Return(),
	}})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("load the gate of a clsact filter: %w", err), latch.Close())
	}
	return gate, latch, nil
}

func newFilter(gate *ebpf.Program, index int, where ebpf.AttachType) (*filter, error) {
	info, err := gate.Info()
	if err != nil {
		return nil, explain(err)
	}
	id, _ := info.ID()
	c, err := openClsact(index)
	if err != nil {
		return nil, err
	}
	f := &filter{clsact: c, parent: netlink.HANDLE_MIN_INGRESS, gate: int(id)}
	if where == ebpf.AttachTCXEgress {
		f.parent = netlink.HANDLE_MIN_EGRESS
	}
	return f, nil
}

// Close removes exactly this filter, and nothing when it or the device is gone.
func (f *filter) Close() error {
	defer f.handle.Close()
	_, err := f.remove(func(k known) bool { return k.Id == f.gate })
	return errors.Join(err, f.latch.Close())
}

func (f *filter) alive() (bool, error) {
	ours, err := f.ours(f.parent)
	return slices.ContainsFunc(ours, func(k known) bool { return k.Id == f.gate }), err
}

// install adds the filter, and the qdisc where there is none. What the same program was attached by before, or in a killed
// process, goes after that, so that no packet passes unseen.
func (f *filter) install(gate *ebpf.Program) error {
	made, err := f.ensureQdisc()
	if err != nil {
		return unknownKind(err)
	}
	if err := f.add(gate, made); err != nil {
		if made {
			err = errors.Join(err, f.deleteQdisc())
		}
		return err
	}
	_, err = f.remove(func(k known) bool { return k.Parent == f.parent && k.program == f.name && k.Id != f.gate })
	return err
}

func (f *filter) add(gate *ebpf.Program, madeQdisc bool) error {
	place, err := f.place()
	if err != nil {
		return err
	}
	marked, err := f.marked()
	if err != nil {
		return err
	}
	prefix := filterPrefix
	if madeQdisc || marked {
		prefix = filterPrefixWithClsact
	}
	return unknownKind(f.handle.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: place, Fd: gate.FD(), Name: prefix + "/" + f.name, DirectAction: true,
	}))
}

// unknownKind tells that the kernel knows no clsact, or no filters that are programs.
func unknownKind(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: the kernel has neither tcx nor clsact with BPF filters: %w", ErrUnsupported, err)
	}
	return explain(err)
}

// ensureQdisc makes the clsact qdisc unless somebody has. An ingress qdisc, which has the same place, takes filters for
// ingress, and would take those for egress too and ask them at ingress.
func (f *filter) ensureQdisc() (made bool, err error) {
	err = f.handle.QdiscAdd(f.qdisc())
	if !errors.Is(err, unix.EEXIST) {
		return err == nil, err
	}
	list, err := f.handle.QdiscList(f.device)
	if err != nil {
		return false, fmt.Errorf("list the qdiscs of device %d: %w", f.device.Attrs().Index, err)
	}
	for _, q := range list {
		if q.Attrs().Handle == clsactHandle && q.Type() != "clsact" && f.parent == netlink.HANDLE_MIN_EGRESS {
			return false, fmt.Errorf("device %d has an %s qdisc where clsact is needed, remove it", f.device.Attrs().Index, q.Type())
		}
	}
	return false, nil
}

func (c *clsact) qdisc() netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: c.device.Attrs().Index, Handle: clsactHandle, Parent: netlink.HANDLE_CLSACT,
	}}
}

func (c *clsact) deleteQdisc() error { return ignoreGone(c.handle.QdiscDel(c.qdisc())) }

// place is the first priority with a handle that is free.
func (f *filter) place() (netlink.FilterAttrs, error) {
	a := netlink.FilterAttrs{LinkIndex: f.device.Attrs().Index, Parent: f.parent, Priority: firstPriority, Protocol: unix.ETH_P_ALL, Handle: 1}
	list, err := f.list(f.parent)
	if err != nil {
		return a, err
	}
	taken := map[uint32]bool{}
	for _, other := range list {
		o := other.Attrs()
		if o.Priority != firstPriority || o.Chain != nil && *o.Chain != 0 {
			continue
		}
		if other.Type() != "bpf" || o.Protocol != unix.ETH_P_ALL {
			return a, fmt.Errorf("a %s filter has priority %d on device %d, give it a later one", other.Type(), firstPriority, a.LinkIndex)
		}
		taken[o.Handle] = true
	}
	for taken[a.Handle] {
		a.Handle++
	}
	return a, nil
}

func (c *clsact) list(parent uint32) ([]netlink.Filter, error) {
	list, err := c.handle.FilterList(c.device, parent)
	if err != nil {
		return nil, fmt.Errorf("list the filters of device %d: %w", c.device.Attrs().Index, err)
	}
	return list, nil
}

// known is a filter of ours.
type known struct {
	*netlink.BpfFilter
	program    string // name
	withClsact bool
}

// ours lists our filters in one direction.
func (c *clsact) ours(parent uint32) (ours []known, err error) {
	list, err := c.list(parent)
	for _, f := range list {
		b, ok := f.(*netlink.BpfFilter)
		if !ok {
			continue
		}
		prefix, program, _ := strings.Cut(b.Name, "/")
		if prefix == filterPrefix || prefix == filterPrefixWithClsact {
			ours = append(ours, known{b, program, prefix == filterPrefixWithClsact})
		}
	}
	return ours, err
}

var bothDirections = []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}

// marked tells whether the qdisc was made for filters of ours.
func (c *clsact) marked() (bool, error) {
	for _, parent := range bothDirections {
		ours, err := c.ours(parent)
		if err != nil || slices.ContainsFunc(ours, func(k known) bool { return k.withClsact }) {
			return err == nil, err
		}
	}
	return false, nil
}

// remove deletes those of our filters that match, then the qdisc when it came with one of them and has become empty.
func (c *clsact) remove(match func(known) bool) (removed bool, err error) {
	var marked bool
	for _, parent := range bothDirections {
		ours, err := c.ours(parent)
		if err != nil {
			return removed, err
		}
		for _, k := range ours {
			if !match(k) {
				continue
			}
			if err := ignoreGone(c.handle.FilterDel(k.BpfFilter)); err != nil {
				return removed, fmt.Errorf("delete the filter %s of device %d: %w", k.Name, k.LinkIndex, err)
			}
			removed, marked = true, marked || k.withClsact
		}
	}
	if !marked {
		return removed, nil
	}
	return removed, c.deleteEmptyQdisc()
}

func (c *clsact) deleteEmptyQdisc() error {
	for _, parent := range bothDirections {
		if list, err := c.list(parent); err != nil || len(list) > 0 {
			return err
		}
	}
	return c.deleteQdisc()
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
