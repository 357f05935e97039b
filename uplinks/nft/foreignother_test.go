package nft

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab/labtest"
)

// expectNotOurs compares what is bypassed when some programs are ours.
func (h *foreignHost) expectNotOurs(own []ebpf.ProgramID, want ...string) {
	h.t.Helper()
	var got []string
	labtest.Must(h.t, h.ns.Do(func() (err error) {
		got, err = h.foreign.Bypassed(h.tap, []int{h.lan}, own...)
		return err
	}))
	if !slices.Equal(got, want) {
		h.t.Errorf("bypassed:\n %s\nwant:\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func (h *foreignHost) do(f func() error) {
	h.t.Helper()
	labtest.Must(h.t, h.ns.Do(f))
}

func TestBypassedLeavesOutOurs(t *testing.T) {
	w := newWorld(t)
	r := w.apply(w.wanted())
	h := &foreignHost{t: t, ns: w.host, foreign: NewForeign()}
	defer h.foreign.Close()
	h.tap, h.lan = h.index("tapgw0"), h.index("lan0")
	h.expect()
	w.must(r.socket.close())
	h.expect()
	h.add(testChain{id: "inet tapgw_fallback forward", hook: nftables.ChainHookForward, rules: rules(drop())})
	h.expect("nftables: chain inet tapgw_fallback forward has rules for such packets")
}

// TestBypassedFollowsTheRuleset: a verdict is kept while the generation is the same, and only so long.
func TestBypassedFollowsTheRuleset(t *testing.T) {
	h := newForeignHost(t)
	h.expect()
	h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward, drops: true})
	want := "nftables: chain ip f forward drops by default"
	h.expect(want)
	generation := h.foreign.generation
	h.expect(want)
	if h.foreign.generation != generation {
		t.Error("reading the ruleset changes its generation")
	}
	h.foreign.rules.bases = nil
	h.expect()
	h.add(testChain{id: "ip g output", hook: nftables.ChainHookOutput})
	h.expect(want)
}

// TestBypassedReadsManyRules: the kernel answers in many parts.
func TestBypassedReadsManyRules(t *testing.T) {
	h := newForeignHost(t)
	many := slices.Repeat(rules(join(from("wan0"), drop())), 100)
	h.add(testChain{id: "ip f forward", hook: nftables.ChainHookForward, rules: many})
	for range 49 {
		h.add(testChain{id: "ip f forward", rules: many})
	}
	h.expect()
	h.add(testChain{id: "ip f forward", rules: rules(drop())})
	h.expect("nftables: chain ip f forward has rules for such packets")
}

func TestBypassedAtSeveralDevices(t *testing.T) {
	h := newForeignHost(t)
	name := func(device string) nl.Attribute { return text(attrDeviceName, device) }
	h.atDevices("two", name("wan0"), name("tapgw0"))
	h.atDevices("other", name("wan0"), name("far"))
	h.expect("nftables: chain netdev devices two drops by default")
	h.ingress("lan0")
	h.ingress("wan0")
	h.expect("nftables: chain netdev devices two drops by default", "nftables: chain inet devices lan0 drops by default")
}

func TestDevicesByPrefix(t *testing.T) {
	list, err := nl.MarshalAttributes([]nl.Attribute{{Type: attrDeviceName + 1, Data: []byte("lan\x00")}, text(attrDeviceName, "wan")})
	labtest.Must(t, err)
	devices, err := decodeDevices(attributes{attrHookDevices: list})
	labtest.Must(t, err)
	c := baseChain{devices: devices}
	for device, want := range map[string]bool{"lan": true, "lan0": true, "la": false, "wan": true, "wan0": false} {
		if c.at(device) != want {
			t.Errorf("%s: want %t", device, want)
		}
	}
}

// atDevices makes a chain that drops what comes in by any of the devices.
func (h *foreignHost) atDevices(name string, devices ...nl.Attribute) {
	list, err := nl.MarshalAttributes(devices)
	labtest.Must(h.t, err)
	h.addDropping(table{name: "devices", family: unix.NFPROTO_NETDEV}, name, unix.NF_NETDEV_INGRESS,
		nl.Attribute{Type: attrHookDevices | nl.Nested, Data: list})
}

// ingress makes a chain in the hook that the family inet has at a device.
func (h *foreignHost) ingress(device string) {
	h.addDropping(table{name: "devices", family: unix.NFPROTO_INET}, device, inetIngress, text(unix.NFTA_HOOK_DEV, device))
}

func (h *foreignHost) addDropping(t table, name string, hook uint32, devices nl.Attribute) {
	h.t.Helper()
	nested, err := nl.MarshalAttributes([]nl.Attribute{number(unix.NFTA_HOOK_HOOKNUM, hook), number(unix.NFTA_HOOK_PRIORITY, 0), devices})
	labtest.Must(h.t, err)
	add := t.message(unix.NFT_MSG_NEWCHAIN, nl.Create,
		text(unix.NFTA_CHAIN_TABLE, t.name), text(unix.NFTA_CHAIN_NAME, name), text(unix.NFTA_CHAIN_TYPE, "filter"),
		number(unix.NFTA_CHAIN_POLICY, 0), nl.Attribute{Type: unix.NFTA_CHAIN_HOOK | nl.Nested, Data: nested})
	h.do(func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		return errors.Join(s.commit([]message{t.add(), add}), s.close())
	})
}

// TestBypassedBelowAnotherDevice: rules see the device above a port as the one that packets come in by.
func TestBypassedBelowAnotherDevice(t *testing.T) {
	h := newForeignHost(t)
	h.add(testChain{id: "ip f pre", hook: nftables.ChainHookPrerouting, rules: rules(join(from("above"), drop()))})
	h.expect()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "above"
	labtest.Must(t, h.ns.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	master, lan := &netlink.GenericLink{}, &netlink.GenericLink{}
	master.Index, lan.Index = h.index("above"), h.lan
	labtest.Must(t, h.ns.Handle().LinkSetMaster(lan, master))
	h.expect("nftables: chain ip f pre has rules for such packets")
}

func TestBypassedLines(t *testing.T) {
	h := newForeignHost(t)
	h.add(testChain{id: "ip \a" + strings.Repeat("ä", 100) + " forward", hook: nftables.ChainHookForward, drops: true})
	h.do(func() error {
		list, err := h.foreign.Bypassed(h.tap, []int{h.lan})
		if len(list) != 1 || utf8.RuneCountInString(list[0]) != maxLine || !strings.HasSuffix(list[0], "ä…") || !strings.Contains(list[0], " ?ä") {
			t.Errorf("got %q", list)
		}
		return err
	})
}

// TestBypassedAtAnyPort: one port whose packets a rule may meet is enough, and a chain is told once.
func TestBypassedAtAnyPort(t *testing.T) {
	h := newForeignHost(t)
	h.add(
		testChain{id: "ip f forward", hook: nftables.ChainHookForward, rules: rules(join(to("wan0"), drop()))},
		testChain{id: "ip g forward", hook: nftables.ChainHookForward, drops: true},
		testChain{id: "netdev n wan", hook: nftables.ChainHookIngress, device: "wan0", drops: true},
	)
	h.expect("nftables: chain ip g forward drops by default")
	h.do(func() error {
		got, err := h.foreign.Bypassed(h.tap, []int{h.lan, h.index("wan0"), h.index("far")})
		want := []string{
			"nftables: chain ip f forward has rules for such packets", "nftables: chain ip g forward drops by default",
			"nftables: chain netdev n wan drops by default",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		return err
	})
}

func TestBypassedWithoutDevice(t *testing.T) {
	h := newForeignHost(t)
	h.do(func() error {
		if list, err := h.foreign.Bypassed(h.tap, []int{h.lan, 1 << 20}); !errors.Is(err, ErrNoDevice) {
			t.Errorf("got %q, %v", list, err)
		}
		return nil
	})
}

func TestBypassedIPsec(t *testing.T) {
	network := func(s string) *net.IPNet {
		_, n, err := net.ParseCIDR(s)
		labtest.Must(t, err)
		return n
	}
	tunnel := []netlink.XfrmPolicyTmpl{{Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL}}
	policy := func(dir netlink.Dir, tmpls []netlink.XfrmPolicyTmpl) *netlink.XfrmPolicy {
		return &netlink.XfrmPolicy{Src: network("10.0.0.0/8"), Dst: network("192.168.0.0/16"), Dir: dir, Tmpls: tmpls}
	}
	blocking := policy(netlink.XFRM_DIR_FWD, nil)
	blocking.Action = netlink.XFRM_POLICY_BLOCK
	ipv6 := policy(netlink.XFRM_DIR_FWD, nil)
	ipv6.Src, ipv6.Dst, ipv6.Action = network("2001:db8::/32"), network("2001:db8:1::/48"), netlink.XFRM_POLICY_BLOCK
	ofInterface := policy(netlink.XFRM_DIR_OUT, tunnel)
	ofInterface.Ifid = 7
	for name, c := range map[string]struct {
		policy *netlink.XfrmPolicy
		counts bool
	}{
		"forward":   {policy(netlink.XFRM_DIR_FWD, tunnel), true},
		"out":       {policy(netlink.XFRM_DIR_OUT, tunnel), true},
		"block":     {blocking, true},
		"in":        {policy(netlink.XFRM_DIR_IN, tunnel), false},
		"let pass":  {policy(netlink.XFRM_DIR_FWD, nil), false},
		"IPv6":      {ipv6, false},
		"interface": {ofInterface, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newForeignHost(t)
			h.do(func() error { return netlink.XfrmPolicyAdd(c.policy) }) // the handle of a namespace has no socket for IPsec
			var want []string
			if c.counts {
				want = []string{"IPsec: policies for forwarded packets: 1"}
			}
			h.expect(want...)
		})
	}
}

func TestBypassedIPsecDefault(t *testing.T) {
	const setDefault = 0x27 // XFRM_MSG_SETDEFAULT
	h := newForeignHost(t)
	for _, block := range [][]byte{{2, xfrmBlock, 2}, {2, 2, xfrmBlock}} {
		h.do(func() error {
			request := vnl.NewNetlinkRequest(setDefault, unix.NLM_F_ACK)
			request.AddRawData(block)
			_, err := request.Execute(unix.NETLINK_XFRM, 0)
			return err
		})
		h.expect("IPsec: forwarded packets are blocked by default")
	}
}

func TestBypassedAtIngress(t *testing.T) {
	h := newForeignHost(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return(),
	}})
	labtest.Must(t, err)
	defer program.Close()
	info, err := program.Info()
	labtest.Must(t, err)
	id, _ := info.ID()

	for _, index := range []int{h.tap, h.lan} {
		h.do(func() error {
			l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			return err
		})
	}
	h.expect("tcx: tapgw0 has other ingress programs", "tcx: lan0 has other ingress programs")
	h.expectNotOurs([]ebpf.ProgramID{id})

	at := netlink.QdiscAttrs{LinkIndex: h.lan, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	labtest.Must(t, h.ns.Handle().QdiscAdd(&netlink.Clsact{QdiscAttrs: at}))
	attrs := netlink.FilterAttrs{LinkIndex: h.lan, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}
	labtest.Must(t, h.ns.Handle().FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: program.FD(), Name: "out", DirectAction: true}))
	attrs.Parent = netlink.HANDLE_MIN_INGRESS
	labtest.Must(t, h.ns.Handle().FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: program.FD(), Name: "in", DirectAction: true}))
	h.expectNotOurs([]ebpf.ProgramID{id})
	h.expectNotOurs([]ebpf.ProgramID{id + 1}, "tcx: tapgw0 has other ingress programs", "tc: lan0 has ingress filters", "tcx: lan0 has other ingress programs")
}

func TestBypassedAtIngressQdisc(t *testing.T) {
	h := newForeignHost(t)
	at := netlink.QdiscAttrs{LinkIndex: h.tap, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}
	labtest.Must(t, h.ns.Handle().QdiscAdd(&netlink.Ingress{QdiscAttrs: at}))
	h.expect()
	labtest.Must(t, h.ns.Handle().FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: h.tap, Parent: at.Handle, Priority: 1, Protocol: unix.ETH_P_IP},
		ClassId:     1,
	}))
	h.expect("tc: tapgw0 has ingress filters")
}
