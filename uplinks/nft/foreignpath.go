package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Datapath is where packets of known sessions pass.
type Datapath struct {
	TAP     int              // interface index
	Uplinks []int            // interface indexes
	Kernel  bool             // programs carry them; else the daemon does, with sockets on the uplinks
	Onward  bool             // what is for the host itself goes on from the uplink, past the ingress of the TAP
	IPv6    bool             // there are sessions of IPv6 as well
	Own     []ebpf.ProgramID // those programs
}

// PastChains lists, in lines as Bypassed does, the chains of nftables that others have where packets of known sessions pass
// unseen or too early: at the ingress of an uplink, and with the programs at its egress, and at the ingress of the TAP where those
// of the host's own sessions go past it. It reads the rules only when they changed.
func (f *Foreign) PastChains(d Datapath) (list []string, err error) {
	tap, uplinks, err := f.devices(d)
	if err != nil {
		return nil, err
	}
	if err := f.refresh(); err != nil {
		return nil, err
	}
	for _, u := range uplinks {
		list = append(list, f.rules.chainsAt(d.families(), u, ingress)...)
		if d.Kernel {
			list = append(list, f.rules.chainsAt(d.families(), u, egress)...)
		}
	}
	if d.Onward {
		list = append(list, f.rules.chainsAt(d.families(), tap, ingress)...)
	}
	return list, nil
}

// PastQueues lists likewise what others have there in traffic control: filters and programs at the ingress of an uplink, and
// with our programs filters, programs and the queue of the TAP. Queues and filters at the egress of uplinks meet everything.
func (f *Foreign) PastQueues(d Datapath) (list []string, err error) {
	tap, uplinks, err := f.devices(d)
	if err != nil {
		return nil, err
	}
	var errs []error
	note := func(lines []string, err error) { list, errs = append(list, lines...), append(errs, err) }
	for _, u := range uplinks {
		note(f.past(u, ingress, d.Own))
	}
	if d.Onward {
		note(f.past(tap, ingress, d.Own))
	}
	if d.Kernel {
		note(f.past(tap, egress, d.Own))
		note(f.queue(tap))
	}
	return list, errors.Join(errs...)
}

func (d Datapath) families() []family {
	if d.IPv6 {
		return families
	}
	return families[:1]
}

func (f *Foreign) devices(d Datapath) (tap device, uplinks []device, err error) {
	all, err := f.findDevices(append([]int{d.TAP}, d.Uplinks...))
	if err != nil {
		return device{}, nil, err
	}
	return all[0], all[1:], nil
}

// direction is one of the two sides of a device.
type direction struct {
	name   string // for people
	parent uint32 // of tc filters
	attach ebpf.AttachType
}

var (
	ingress = direction{"ingress", netlink.HANDLE_MIN_INGRESS, ebpf.AttachTCXIngress}
	egress  = direction{"egress", netlink.HANDLE_MIN_EGRESS, ebpf.AttachTCXEgress}
)

// chainsAt names the chains on one side of a device that may act on packets of the families there.
func (r ruleset) chainsAt(carried []family, d device, side direction) (list []string) {
	for _, c := range r.bases {
		if !c.atDevices() || !c.at(d.name) {
			continue
		}
		p := c.passageAt(d)
		acts := func(of family) bool { return r.effect(of, c, p) != "" }
		if (p.in != nil) == (side == ingress) && slices.ContainsFunc(carried, acts) {
			list = append(list, line("nftables: chain %s at the %s of %s", c.chainID, side.name, d.name))
		}
	}
	return list
}

// past lists what is on one side of a device behind our program, which is the first as a rule.
func (f *Foreign) past(d device, side direction, own []ebpf.ProgramID) (list []string, err error) {
	filtered, err := f.hasFilters(d, side, own)
	if err != nil {
		return nil, err
	}
	if filtered {
		list = append(list, line("tc: filters at the %s of %s", side.name, d.name))
	}
	programs, err := d.programs(side)
	if err != nil {
		return nil, err
	}
	if lastOwn(programs, own) < len(programs)-1 {
		list = append(list, line("tcx: programs at the %s of %s", side.name, d.name))
	}
	return list, nil
}

// hasFilters reports whether others have tc filters on one side of the device.
func (f *Foreign) hasFilters(d device, side direction, own []ebpf.ProgramID) (bool, error) {
	at := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: d.index}}
	filters, err := f.kernel.FilterList(at, side.parent)
	if err != nil {
		return false, fmt.Errorf("read the tc filters of %s: %w", d.name, err)
	}
	return slices.ContainsFunc(filters, func(filter netlink.Filter) bool { return !isOwn(filter, own) }), nil
}

// programs are those of tcx on one side of the device, in the order in which packets meet them.
func (d device) programs(side direction) ([]link.AttachedProgram, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: d.index, Attach: side.attach})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil, nil // before Linux 6.6 there is no tcx
	}
	if err != nil {
		return nil, fmt.Errorf("read the tcx programs of %s: %w", d.name, err)
	}
	return result.Programs, nil
}

// lastOwn is -1 when none is ours.
func lastOwn(programs []link.AttachedProgram, own []ebpf.ProgramID) (last int) {
	last = -1
	for i, p := range programs {
		if slices.Contains(own, p.ID) {
			last = i
		}
	}
	return last
}

// queue tells of a queueing discipline that somebody gave the device: the kernel's own choice has no handle.
func (f *Foreign) queue(d device) (list []string, err error) {
	queues, err := f.kernel.QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: d.index}})
	if err != nil {
		return nil, fmt.Errorf("read the queues of %s: %w", d.name, err)
	}
	for _, q := range queues {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Handle != 0 && q.Type() != "noqueue" {
			list = append(list, line("tc: queue %s at the egress of %s", q.Type(), d.name))
		}
	}
	return list, nil
}
