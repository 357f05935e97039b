package nft

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
)

// expectPast compares what known sessions bypass, chains first.
func (h *foreignHost) expectPast(d Datapath, want ...string) {
	h.t.Helper()
	d.TAP, d.Uplinks = h.tap, []int{h.index("wan0")}
	var got []string
	h.do(func() error {
		chains, err := h.foreign.PastChains(d)
		if err != nil {
			return err
		}
		queues, err := h.foreign.PastQueues(d)
		got = append(chains, queues...)
		return err
	})
	if !slices.Equal(got, want) {
		h.t.Errorf("past (kernel %t):\n %s\nwant:\n %s", d.Kernel, strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// nothing is a program that lets packets go on.
func nothing(t *testing.T) (*ebpf.Program, ebpf.ProgramID) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return(),
	}})
	labtest.Must(t, err)
	t.Cleanup(func() { _ = program.Close() })
	info, err := program.Info()
	labtest.Must(t, err)
	id, _ := info.ID()
	return program, id
}

// tcx attaches a program behind the others, or before them.
func (h *foreignHost) tcx(device string, at ebpf.AttachType, program *ebpf.Program, before link.Anchor) {
	h.t.Helper()
	h.do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: h.index(device), Program: program, Attach: at, Anchor: before})
		if err == nil {
			h.t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
}

// clsact makes the qdisc that tc filters of both sides are in.
func (h *foreignHost) clsact(device string) {
	h.t.Helper()
	at := netlink.QdiscAttrs{LinkIndex: h.index(device), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	labtest.Must(h.t, h.ns.Handle().QdiscAdd(&netlink.Clsact{QdiscAttrs: at}))
}

func (h *foreignHost) filter(device string, parent uint32, name string, program *ebpf.Program) {
	h.t.Helper()
	attrs := netlink.FilterAttrs{LinkIndex: h.index(device), Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}
	labtest.Must(h.t, h.ns.Handle().FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: program.FD(), Name: name, DirectAction: true}))
}

func TestPastChains(t *testing.T) {
	h := newForeignHost(t)
	at := func(device string, hook *nftables.ChainHook, name string) testChain {
		return testChain{id: "netdev n " + name, hook: hook, device: device, rules: rules(count())}
	}
	in, out := nftables.ChainHookIngress, nftables.ChainHookEgress
	h.add(
		at("wan0", in, "wan-in"), at("wan0", out, "wan-out"), at("tapgw0", in, "tap-in"), at("tapgw0", out, "tap-out"), at("lan0", in, "lan-in"),
		testChain{id: "netdev n empty", hook: in, device: "wan0"},
		testChain{id: "netdev n others", hook: in, device: "wan0", rules: rules(join(from("lan0"), drop()))},
		testChain{id: "inet f input", hook: nftables.ChainHookInput, drops: true},
	)
	h.ingress("wan0")
	h.expectPast(Datapath{Kernel: true, Onward: true},
		"nftables: chain netdev n wan-in at the ingress of wan0", "nftables: chain inet devices wan0 at the ingress of wan0",
		"nftables: chain netdev n wan-out at the egress of wan0", "nftables: chain netdev n tap-in at the ingress of tapgw0")
	h.expectPast(Datapath{Kernel: true},
		"nftables: chain netdev n wan-in at the ingress of wan0", "nftables: chain inet devices wan0 at the ingress of wan0",
		"nftables: chain netdev n wan-out at the egress of wan0")
	h.expectPast(Datapath{},
		"nftables: chain netdev n wan-in at the ingress of wan0", "nftables: chain inet devices wan0 at the ingress of wan0")
}

func TestPastChainsLeavesOutOurs(t *testing.T) {
	w := newWorld(t)
	w.apply(w.wanted())
	h := &foreignHost{t: t, ns: w.host, foreign: NewForeign()}
	defer h.foreign.Close()
	h.tap = h.index("tapgw0")
	h.expectPast(Datapath{})
	h.expectPast(Datapath{Kernel: true, Onward: true})
}

func TestPastPrograms(t *testing.T) {
	h := newForeignHost(t)
	ours, id := nothing(t)
	theirs, _ := nothing(t)
	kernel := Datapath{Kernel: true, Onward: true, Own: []ebpf.ProgramID{id}}
	h.tcx("wan0", ebpf.AttachTCXIngress, ours, nil)
	h.tcx("tapgw0", ebpf.AttachTCXEgress, ours, nil)
	h.expectPast(kernel)
	h.tcx("wan0", ebpf.AttachTCXIngress, theirs, link.Head())
	h.tcx("tapgw0", ebpf.AttachTCXEgress, theirs, link.Head())
	h.tcx("wan0", ebpf.AttachTCXEgress, theirs, nil)
	h.expectPast(kernel)
	h.expectPast(Datapath{}, "tcx: programs at the ingress of wan0")
	behind, _ := nothing(t)
	h.tcx("wan0", ebpf.AttachTCXIngress, behind, nil)
	h.tcx("tapgw0", ebpf.AttachTCXEgress, behind, nil)
	h.tcx("tapgw0", ebpf.AttachTCXIngress, behind, nil)
	h.expectPast(kernel, "tcx: programs at the ingress of wan0", "tcx: programs at the ingress of tapgw0", "tcx: programs at the egress of tapgw0")
	kernel.Onward = false
	h.expectPast(kernel, "tcx: programs at the ingress of wan0", "tcx: programs at the egress of tapgw0")
}

func TestPastFilters(t *testing.T) {
	h := newForeignHost(t)
	program, id := nothing(t)
	for _, device := range []string{"wan0", "tapgw0"} {
		h.clsact(device)
	}
	h.filter("wan0", netlink.HANDLE_MIN_EGRESS, "user", program)
	h.expectPast(Datapath{Kernel: true, Onward: true})
	h.filter("wan0", netlink.HANDLE_MIN_INGRESS, "tapgw/uplink_ingress", program)
	h.filter("tapgw0", netlink.HANDLE_MIN_EGRESS, "tapgw+clsact/tap_egress", program)
	h.expectPast(Datapath{Kernel: true, Onward: true})
	h.clsact("lan0")
	h.filter("lan0", netlink.HANDLE_MIN_INGRESS, "user", program)
	h.expectPast(Datapath{Kernel: true, Onward: true})
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		attrs := netlink.FilterAttrs{LinkIndex: h.tap, Parent: parent, Priority: 2, Protocol: unix.ETH_P_IP}
		labtest.Must(t, h.ns.Handle().FilterAdd(&netlink.U32{FilterAttrs: attrs, ClassId: 1}))
	}
	attrs := netlink.FilterAttrs{LinkIndex: h.index("wan0"), Parent: netlink.HANDLE_MIN_INGRESS, Priority: 2, Protocol: unix.ETH_P_IP}
	labtest.Must(t, h.ns.Handle().FilterAdd(&netlink.U32{FilterAttrs: attrs, ClassId: 1}))
	h.expectPast(Datapath{Kernel: true, Onward: true, Own: []ebpf.ProgramID{id}},
		"tc: filters at the ingress of wan0", "tc: filters at the ingress of tapgw0", "tc: filters at the egress of tapgw0")
	h.expectPast(Datapath{}, "tc: filters at the ingress of wan0")
}

func TestPastQueue(t *testing.T) {
	h := newForeignHost(t)
	for _, device := range []string{"wan0", "tapgw0"} {
		l, err := h.ns.Handle().LinkByName(device)
		labtest.Must(t, err)
		labtest.Must(t, h.ns.Handle().LinkSetUp(l)) // which gives it the kernel's own choice
		h.expectPast(Datapath{Kernel: true, Onward: true})
	}
	for _, device := range []string{"wan0", "tapgw0"} {
		at := netlink.QdiscAttrs{LinkIndex: h.index(device), Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
		labtest.Must(t, h.ns.Handle().QdiscReplace(&netlink.GenericQdisc{QdiscType: "pfifo", QdiscAttrs: at}))
	}
	h.expectPast(Datapath{Kernel: true, Onward: true}, "tc: queue pfifo at the egress of tapgw0")
	h.expectPast(Datapath{})
}

// TestPastChainsReadsOnlyChanges: what was read holds while the generation is the same.
func TestPastChainsReadsOnlyChanges(t *testing.T) {
	h := newForeignHost(t)
	h.add(testChain{id: "netdev n wan", hook: nftables.ChainHookIngress, device: "wan0", drops: true})
	h.expectPast(Datapath{}, "nftables: chain netdev n wan at the ingress of wan0")
	h.foreign.rules.bases = nil
	h.expectPast(Datapath{})
	h.atDevices("two", text(attrDeviceName, "wan0"), text(attrDeviceName, "lan0"))
	h.expectPast(Datapath{}, "nftables: chain netdev n wan at the ingress of wan0", "nftables: chain netdev devices two at the ingress of wan0")
}
