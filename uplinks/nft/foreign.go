package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrRulesetChanges means that the ruleset was changed all the time while it was read; reading it again later cures it.
var ErrRulesetChanges = errors.New("the ruleset keeps changing")

// Foreign finds what other programs have put into the way of packets that BPF programs would take past it: of forwarded
// packets, where a shortcut past the host's own forwarding would bypass it (Bypassed), of the host's own packets, which need no
// connection tracking where nothing does (MetByHost), and of all packets of known sessions at the uplinks and the TAP (PastChains,
// PastQueues). Its methods are not for concurrent use.
//
// It knows nftables, legacy iptables and ip6tables, IPsec policies, and tc and tcx. What need not be looked for as it still meets packets
// that are redirected: tc and tcx filters and queues at the egress of uplinks and of the LAN, but not of the TAP; chains of
// nftables at the egress of the TAP, but of no other device, and there only without the shortcut; and what acts on every
// packet of a bridge. Not found are routing rules and BPF programs of the type netfilter.
type Foreign struct {
	socket     *socket         // nil until the kernel has nf_tables
	kernel     *netlink.Handle // nil until it is needed
	rules      ruleset
	generation uint32 // of rules
	known      bool   // rules were read
}

// NewForeign returns a Foreign that has read nothing.
func NewForeign() *Foreign { return &Foreign{} }

// Close gives up the sockets.
func (f *Foreign) Close() error {
	old := *f
	*f = Foreign{}
	if old.kernel != nil {
		old.kernel.Close()
	}
	if old.socket != nil {
		return old.socket.close()
	}
	return nil
}

// connect opens what all but nftables is asked by; a socket for each question costs more than the answer.
func (f *Foreign) connect() (err error) {
	if f.kernel == nil {
		if f.kernel, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("forwarding: open a netlink socket: %w", err)
		}
	}
	return nil
}

// Bypassed lists, for people, in lines of at most 80 characters, what may act on IPv4 packets that are forwarded from one
// of the ports to tap or back, all given by interface index; nothing when a shortcut between them is safe. Our own tables and
// the given programs do not count, nor does a chain of nftables that does nothing else than accept such packets, or does so
// before anything else: that is how a user can permit the shortcut in spite of a firewall. After an error nothing is known.
//
// It acts in the network namespace of the calling thread, always the same for one Foreign, and reads the rules of nftables
// again only when they changed.
func (f *Foreign) Bypassed(tap int, ports []int, own ...ebpf.ProgramID) (list []string, err error) {
	return f.bypassed(ofIPv4, tap, ports, own)
}

// BypassedV6 is Bypassed for packets of IPv6.
func (f *Foreign) BypassedV6(tap int, ports []int, own ...ebpf.ProgramID) (list []string, err error) {
	return f.bypassed(ofIPv6, tap, ports, own)
}

func (f *Foreign) bypassed(of family, tap int, ports []int, own []ebpf.ProgramID) (list []string, err error) {
	ends, err := f.findDevices(append([]int{tap}, ports...))
	if err != nil {
		return nil, err
	}
	if err := f.refresh(); err != nil {
		return nil, err
	}
	list = f.rules.bypassed(of, ends[0], ends[1:])
	legacy, err := legacyChains(of, forwardHooks)
	if err != nil {
		return nil, err
	}
	ipsec, err := ipsecBypassed(of)
	if err != nil {
		return nil, err
	}
	list = slices.Concat(list, legacy, ipsec)
	for _, d := range ends {
		more, err := f.ingressBypassed(d, own)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// MetByHost lists likewise the chains that may act on IPv4 packets that this host itself sends or receives by tap, and those that
// may act on what of its known connections comes in by one of the uplinks; nothing does by an uplink that is gone.
func (f *Foreign) MetByHost(tap int, uplinks []int) (atTAP, atUplinks []string, err error) {
	return f.metByHost(ofIPv4, tap, uplinks)
}

// MetByHostV6 is MetByHost for packets of IPv6.
func (f *Foreign) MetByHostV6(tap int, uplinks []int) (atTAP, atUplinks []string, err error) {
	return f.metByHost(ofIPv6, tap, uplinks)
}

func (f *Foreign) metByHost(of family, tap int, uplinks []int) (atTAP, atUplinks []string, err error) {
	ends, err := f.findDevices([]int{tap})
	if err != nil {
		return nil, nil, err
	}
	for _, index := range uplinks {
		found, err := f.findDevices([]int{index})
		if err != nil && !errors.Is(err, ErrNoDevice) {
			return nil, nil, err
		}
		ends = append(ends, found...)
	}
	if err := f.refresh(); err != nil {
		return nil, nil, err
	}
	legacy, err := legacyChains(of, hostHooks)
	return append(f.rules.metByHost(of, ends[0]), legacy...), append(f.rules.metAtUplinks(of, ends[1:]), legacy...), err
}

// device is one end of the way.
type device struct {
	name     string
	index    int
	enslaved bool // rules may see its packets come in by the device above it
}

func (f *Foreign) findDevices(indexes []int) (list []device, err error) {
	if err := f.connect(); err != nil {
		return nil, err
	}
	for _, index := range indexes {
		l, err := f.kernel.LinkByIndex(index)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil, fmt.Errorf("forwarding: interface %d: %w", index, ErrNoDevice)
		}
		if err != nil {
			return nil, fmt.Errorf("forwarding: read interface %d: %w", index, err)
		}
		a := l.Attrs()
		list = append(list, device{a.Name, index, a.MasterIndex != 0})
	}
	return list, nil
}

// ingressBypassed lists what would handle packets that come in by the device after our program, which is the first.
func (f *Foreign) ingressBypassed(d device, own []ebpf.ProgramID) (list []string, err error) {
	filtered, err := f.hasFilters(d, ingress, own)
	if err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	if filtered {
		list = append(list, line("tc: %s has ingress filters", d.name))
	}
	programs, err := d.programs(ingress)
	if err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	if slices.ContainsFunc(programs, func(p link.AttachedProgram) bool { return !slices.Contains(own, p.ID) }) {
		list = append(list, line("tcx: %s has other ingress programs", d.name))
	}
	return list, nil
}

// ownFilters is how the names of filters begin that run our programs where there is no tcx.
const ownFilters = "tapgw"

func isOwn(f netlink.Filter, own []ebpf.ProgramID) bool {
	b, ok := f.(*netlink.BpfFilter)
	return ok && (slices.Contains(own, ebpf.ProgramID(b.Id)) || strings.HasPrefix(b.Name, ownFilters))
}

// The request for what happens to packets that no IPsec policy matches, and its answer (linux/xfrm.h, Linux 5.14).
const (
	xfrmGetDefault = 0x28
	xfrmBlock      = 1
)

// ipsecBypassed lists what the kernel's IPsec would do to packets forwarded in the clear.
func ipsecBypassed(of family) (list []string, err error) {
	policies, err := netlink.XfrmPolicyList(of.domain)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forwarding: read the IPsec policies: %w", err)
	}
	if n := len(slices.DeleteFunc(policies, ipsecHarmless)); n > 0 {
		list = append(list, line("IPsec: policies for forwarded packets: %d", n))
	}
	blocks, err := ipsecBlocks()
	if blocks {
		list = append(list, line("IPsec: forwarded packets are blocked by default"))
	}
	return list, err
}

// ipsecBlocks reports whether what no policy matches is dropped when it is forwarded.
func ipsecBlocks() (bool, error) {
	request := nl.NewNetlinkRequest(xfrmGetDefault, 0)
	request.AddRawData(make([]byte, 3)) // xfrm_userpolicy_default: in, forward, out
	answers, err := request.Execute(unix.NETLINK_XFRM, xfrmGetDefault)
	if errors.Is(err, unix.EINVAL) {
		return false, nil // before Linux 5.14 they pass
	}
	if err != nil {
		return false, fmt.Errorf("forwarding: read what IPsec does by default: %w", err)
	}
	if len(answers) != 1 || len(answers[0]) < 3 {
		return false, fmt.Errorf("forwarding: read what IPsec does by default: %d answers that cannot be understood", len(answers))
	}
	return answers[0][1] == xfrmBlock || answers[0][2] == xfrmBlock, nil
}

// ipsecHarmless tells policies that let pass what they match, or that match nothing forwarded between ordinary devices:
// those of sockets, of the host's own traffic, and of IPsec interfaces.
func ipsecHarmless(p netlink.XfrmPolicy) bool {
	forwarded := p.Dir == netlink.XFRM_DIR_FWD || p.Dir == netlink.XFRM_DIR_OUT
	passes := p.Action == netlink.XFRM_POLICY_ALLOW && len(p.Tmpls) == 0
	return !forwarded || passes || p.Ifid != 0
}

// maxLine is the length of a line for people, in characters.
const maxLine = 80

// line cuts what is too long, and shows no control characters, which names may contain.
func line(format string, args ...any) string {
	text := []rune(fmt.Sprintf(format, args...))
	for i, r := range text {
		if !unicode.IsPrint(r) {
			text[i] = '?'
		}
	}
	if len(text) > maxLine {
		text = append(text[:maxLine-1], '…')
	}
	return string(text)
}
