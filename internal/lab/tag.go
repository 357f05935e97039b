package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TagPriority has all frames that leave by a device carry a tag with a priority (0–7) and no VLAN (IEEE 802.1Q), as the
// equipment of some fibre providers does. Frames of a veth carry it beside them, where a network card puts it too.
func (n *Namespace) TagPriority(device string, priority uint8) error {
	link, err := n.link(device)
	if err != nil {
		return err
	}
	const priorityShift, next = 13, -1 // TC_ACT_UNSPEC
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "lab_tag", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(htons(unix.ETH_P_8021Q))), asm.Mov.Imm(asm.R3, int32(priority)<<priorityShift),
		asm.FnSkbVlanPush.Call(), // the packet is in R1
		asm.Mov.Imm(asm.R0, next), asm.Return(),
	}})
	if err != nil {
		return fmt.Errorf("namespace %s: load the program that tags: %w", n.name, err)
	}
	defer program.Close()
	index := link.Attrs().Index
	clsact := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := n.handle.QdiscReplace(&netlink.Clsact{QdiscAttrs: clsact}); err != nil {
		return fmt.Errorf("namespace %s: add clsact to %s: %w", n.name, device, err)
	}
	place := netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}
	filter := &netlink.BpfFilter{FilterAttrs: place, Fd: program.FD(), Name: "lab_tag", DirectAction: true}
	if err := n.handle.FilterReplace(filter); err != nil {
		return fmt.Errorf("namespace %s: tag what leaves by %s: %w", n.name, device, err)
	}
	return nil
}
